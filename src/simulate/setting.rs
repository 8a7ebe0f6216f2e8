//! Who takes part and with which keys: what the owner declared, the tag keys, the clients of the exchange.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::kernel::act::KeyPrint;
use crate::kernel::declared::{Declared, Limits, QuoteLimit, SymbolLimit, Waits};
use crate::kernel::order::{Account, Asset, Bot as BotName, Symbol};
use crate::kernel::stopping::{DeclaredKey, KeyRole, Means as ByMeans, Mode, Stopping};
use crate::sim::config::{AccountSpec, KeySpec, SimConfig};
use crate::sim::seed::Seeded;
use crate::simulate::acts::Means;
use crate::simulate::bot::Bot;
use crate::simulate::client::Client;
use crate::simulate::emergency::{Emergency, Leaves};
use crate::simulate::script::{START, Script};
use crate::tag::TagKeys;
use crate::tag::layout::KeyId;
use crate::tag::mac::{KeyOwner, TagKey};

pub const ACCOUNT: &str = "main";
pub const BOT_AGENT: &str = "bot";
pub const THIEF_AGENT: &str = "thief";
pub const CONTAINMENT_AGENT: &str = "containment";
pub const THIEFS_HOST: IpAddr = host(66);
/// The second bot's own key, where it has one.
const SECOND_KEY: &str = "main/second";
/// The declared way to stop the bots.
const HOOK: &str = "unit";
pub const MARKET: &str = "binance/spot";
/// The bots' symbols, with the most of one order.
pub const SYMBOLS: [(&str, &str); 2] = [("BTCUSDT", "0.05"), ("ETHUSDT", "1")];
/// Of a bot's order, in USDT.
const NOTIONAL_MAX: &str = "4000";

pub struct Setting {
    pub declared: Declared,
    pub tags: TagKeys,
    pub watch: Client,
    pub thief: Client,
    pub means: Means,
    pub bots: Vec<Bot>,
}

pub fn of(config: &SimConfig, script: &Script, dice: &mut Seeded) -> Option<Setting> {
    let account = config.accounts.first()?;
    let (own, name) = (key_of(account, "/bot")?, Account::new(ACCOUNT));
    let watch = key_of(account, "/watch")?;
    let daemon_secret = dice.base62(32);
    let mut others = Vec::new();
    let mut bots = Vec::new();
    for (place, plan) in (0_u8..).zip(&script.bots) {
        let bot = BotName::new(&format!("bot-{place}"));
        let (secret, id) = (dice.base62(32), KeyId::new(place + 1)?);
        let derive = || TagKey::derive(secret.as_bytes(), &name, KeyOwner::Bot(&bot), id).ok();
        others.push(derive()?);
        let own_tags = TagKeys::new(name.clone(), MARKET, derive()?, Vec::new(), Vec::new()).ok()?;
        let second = if place == 1 { key_of(account, SECOND_KEY) } else { None };
        let key = second.unwrap_or(own);
        let client = Client::new(key.0, key.1, BOT_AGENT, host(7))?;
        bots.push(Bot::new(bot, *plan, client, own_tags, skew(dice, script.weather.bot_skew_ms)));
    }
    let issuing = TagKey::derive(daemon_secret.as_bytes(), &name, KeyOwner::Daemon, KeyId::new(0)?).ok()?;
    Some(Setting {
        declared: Declared {
            stopping: script.emergency.as_ref().map(|emergency| stopping(account, emergency)),
            ..declared(script, &bots)?
        },
        means: means(config, account)?,
        tags: TagKeys::new(name, MARKET, issuing, others, Vec::new()).ok()?,
        watch: Client::new(watch.0, watch.1, "watcher", host(9))?,
        thief: Client::new(own.0, own.1, THIEF_AGENT, THIEFS_HOST)?,
        bots,
    })
}

/// Milliseconds ahead of the exchange's clock, or behind it.
pub fn skew(dice: &mut Seeded, most_ms: u32) -> i64 {
    i64::from(dice.below(2 * most_ms + 1)) - i64::from(most_ms)
}

const fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, number))
}

/// The master's key may be used from this machine only.
fn means(config: &SimConfig, account: &AccountSpec) -> Option<Means> {
    let admin = key_of(config.accounts.last()?, "/admin")?;
    let cancel = key_of(account, "/cancel")?;
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let declared = account.keys.iter().map(|key| (KeyPrint::of(&key.api_key), key.api_key.as_str().into()));
    Some(Means {
        account: account.uid,
        sub_account: account.email.clone()?,
        admin: Client::new(admin.0, admin.1, CONTAINMENT_AGENT, here)?,
        cancel: Client::new(cancel.0, cancel.1, CONTAINMENT_AGENT, here)?,
        declared: declared.collect(),
    })
}

/// The exchange: the account that is watched, another sub-account, which nobody may touch, and their master.
pub fn exchange(seed: u64, script: &Script, dice: &mut Seeded) -> SimConfig {
    let mut config = SimConfig { orders_per_10s: 10_000, ..SimConfig::demo(dice.draw(), 2, || START) };
    let two = script.bots.len() > 1 && script.emergency.as_ref().is_some_and(|emergency| emergency.second_key);
    let mut more = Seeded::new(seed ^ 0x7365_636F_6E64);
    if let Some(account) = config.accounts.first_mut().filter(|_| two) {
        account.keys.push(KeySpec {
            name: SECOND_KEY.to_owned(),
            api_key: more.base62(64),
            secret: Some(more.base62(64)),
            public_key: None,
            trade: true,
            permissions: None,
            addresses: Vec::new(),
        });
    }
    config
}

fn stopping(account: &AccountSpec, emergency: &Emergency) -> Stopping {
    let role = |name: &str| match name {
        _ if name.ends_with("/watch") => KeyRole::Watch,
        _ if name.ends_with("/cancel") => KeyRole::Cancel,
        _ => KeyRole::Bot,
    };
    let key = |key: &KeySpec| DeclaredKey {
        name: key.name.as_str().into(),
        print: KeyPrint::of(&key.api_key),
        role: role(&key.name),
    };
    Stopping {
        mode: if emergency.acts_alone { Mode::Act } else { Mode::Ask },
        means: ByMeans::SubAccount,
        keys: account.keys.iter().map(key).collect(),
        hooks: emergency.hook.iter().map(|_| HOOK.into()).collect(),
        pausing: emergency.hook.iter().filter(|hook| hook.leaves == Leaves::Paused).map(|_| HOOK.into()).collect(),
        quiet: Duration::from_secs(5),
        freeze_unanswered: emergency.freeze_unanswered,
        transfer_to_master: false,
    }
}

fn key_of<'a>(account: &'a AccountSpec, name: &str) -> Option<(&'a str, &'a str)> {
    let key = account.keys.iter().find(|key| key.name.ends_with(name))?;
    Some((&key.api_key, key.secret.as_deref()?))
}

fn declared(script: &Script, bots: &[Bot]) -> Option<Declared> {
    let usdt = Asset::new("USDT");
    let mut limits = Limits { symbols: Default::default(), quote: Default::default(), orders_per_minute: 10_000 };
    for (symbol, most) in SYMBOLS {
        let limit = SymbolLimit { quote: usdt.clone(), order_quantity: most.parse().ok()? };
        limits.symbols.insert(Symbol::new(symbol), limit);
    }
    let quote = QuoteLimit { order_notional: NOTIONAL_MAX.parse().ok()?, notional_per_hour: "100000000".parse().ok()? };
    limits.quote.insert(usdt, quote);
    Some(Declared {
        bots: bots.iter().map(|bot| (bot.name.clone(), limits.clone())).collect(),
        tagged_only: script.tagged_only,
        waits: Waits { audit_every: Duration::from_secs(30), ..Waits::default() },
        ..Declared::nothing(Account::new(ACCOUNT))
    })
}
