//! Money to the master and into another asset: each once, and a lost answer is found out about.

use super::*;

#[tokio::test]
async fn money_goes_to_the_master_once_and_a_lost_answer_is_found() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    let transfer = |amount: &str, id: &str| Act::Transfer {
        asset: Asset::new("USDT"),
        amount: amount.parse().unwrap(),
        id: id.into(),
    };
    let find = |id: &str| Act::FindTransfer { id: id.into() };
    let free = async || {
        let ActOutcome::Balances(rows) = outlet.act(&Act::Balances, &clock).await else { panic!("it can be read") };
        rows.iter().find(|row| row.asset == Asset::new("USDT")).map(|row| row.free.to_string())
    };
    let before: Dec = free().await.unwrap().parse().unwrap();
    assert_eq!(word(&outlet.act(&find("cs1"), &clock).await), "not found");
    assert_eq!(word(&outlet.act(&transfer("10.5", "cs1"), &clock).await), "done");
    assert_eq!(word(&outlet.act(&transfer("10.5", "cs1"), &clock).await), "refused -9000");
    assert_eq!(word(&outlet.act(&transfer("999999999", "cs2"), &clock).await), "refused -9000");
    for (id, what) in [("cs3", json!("cut_after")), ("cs4", json!("unknown_after")), ("cs5", json!("garbage"))] {
        venue.inflict("POST", TRANSFER, 1, what.clone()).await;
        assert_eq!(word(&outlet.act(&transfer("1", id), &clock).await), "unknown", "{what}");
        let found = word(&outlet.act(&find(id), &clock).await);
        assert!(found == if id == "cs5" { found.as_str() } else { "done" }, "{what}: {found}");
    }
    for (act, method) in [(transfer("1", "cs6"), "POST"), (find("cs1"), "GET")] {
        venue.inflict(method, TRANSFER, 1, json!({ "answer": { "status": 401, "code": -2015 } })).await;
        assert_eq!(word(&outlet.act(&act, &clock).await), "refused -2015");
        venue.inflict(method, TRANSFER, 1, json!("cut")).await;
        assert_eq!(word(&outlet.act(&act, &clock).await), "unknown");
    }
    assert_eq!(word(&outlet.act(&find("cs6"), &clock).await), "not found");
    let ledger = venue.control("ledger", None).await;
    let rows = ledger["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == "TRANSFER");
    let amounts: Vec<Dec> = rows.map(|row| row["amount"].as_str().unwrap().parse().unwrap()).collect();
    let gone = amounts
        .iter()
        .filter(|amount| !amount.is_positive())
        .fold(before, |left, amount| left.checked_add(*amount).unwrap());
    assert_eq!(free().await, Some(gone.to_string()), "the exchange's own books");
}

#[tokio::test]
async fn a_sale_fills_at_once_or_is_gone_and_is_found_by_its_id() {
    let venue = Venue::start().await;
    let outlet = venue.outlet(venue.parts());
    let symbol = Symbol::new("BTCUSDT");
    let quote = async || {
        let asked = outlet.act(&Act::Quote { symbol: Symbol::new("BTCUSDT") }, &clock).await;
        let ActOutcome::Quote(quote) = asked else { panic!("it can be read: {asked:?}") };
        quote
    };
    let seen = quote().await;
    assert!(seen.trading && seen.average.is_positive() && !seen.bids.is_empty(), "{seen:?}");
    assert_eq!((&seen.base, &seen.quote), (&Asset::new("BTC"), &Asset::new("USDT")));
    let (best, _) = seen.bids[0];
    let sell = |quantity: &str, price: Dec, id: &str| Act::Sell {
        symbol: Symbol::new("BTCUSDT"),
        quantity: quantity.parse().unwrap(),
        price,
        id: ClientId::new(id),
    };
    let find = |id: &str| Act::FindOrder { symbol: symbol.clone(), id: ClientId::new(id) };
    let (low, high) = (best.checked_sub(Dec::from(100)).unwrap(), best.checked_add(Dec::from(1_000)).unwrap());
    assert_eq!(word(&outlet.act(&find("cs-1"), &clock).await), "not found");
    assert_eq!(word(&outlet.act(&sell("0.001", low, "cs-1"), &clock).await), "sold 0.001");
    assert_eq!(word(&outlet.act(&find("cs-1"), &clock).await), "sold 0.001");
    assert_eq!(word(&outlet.act(&sell("0.001", high, "cs-2"), &clock).await), "sold 0", "nobody bids so much");
    assert_eq!(word(&outlet.act(&Act::OpenOrders, &clock).await), "0 orders", "and it does not rest");
    assert!(word(&outlet.act(&sell("100000", low, "cs-3"), &clock).await).starts_with("refused -"));
    for (id, what) in [("cs-4", json!("cut_after")), ("cs-5", json!("unknown_after"))] {
        venue.inflict("POST", ORDER, 1, what.clone()).await;
        assert_eq!(word(&outlet.act(&sell("0.001", low, id), &clock).await), "unknown", "{what}");
        assert_eq!(word(&outlet.act(&find(id), &clock).await), "sold 0.001", "{what}");
    }
    for path in ["/api/v3/exchangeInfo", "/api/v3/avgPrice", "/api/v3/ticker/24hr", "/api/v3/depth"] {
        venue.inflict("GET", path, 1, json!("garbage")).await;
        let odd = outlet.act(&Act::Quote { symbol: symbol.clone() }, &clock).await;
        assert_eq!(word(&odd), "unknown", "{path}");
    }
    let nothing = outlet.act(&Act::Quote { symbol: Symbol::new("NOSUCHUSDT") }, &clock).await;
    assert_eq!(word(&nothing), "refused -1121");
}

#[tokio::test]
async fn an_admin_key_without_the_right_to_transfer_is_told_and_kills_all_the_same() {
    let mut config = SimConfig::demo(1, 1, clock);
    for key in config.accounts.iter_mut().flat_map(|account| &mut account.keys) {
        key.permissions.iter_mut().for_each(|all| all.retain(|one| *one != Permission::InternalTransfer));
    }
    let venue = Venue::of(config).await;
    let outlet = venue.outlet(venue.parts());
    let CredentialOutcome::Wrong { faults } =
        outlet.check(CredentialRole::Admin, &venue.credential("/admin"), &clock).await
    else {
        panic!("it may not transfer")
    };
    assert!(told(&faults).contains("Enable Internal Transfer") && faults[0].is_used, "{faults:?}");
    let bot = venue.print("/bot");
    assert_eq!(word(&outlet.act(&freeze(bot), &clock).await), "done");
    let transfer = Act::Transfer { asset: Asset::new("USDT"), amount: "1".parse().unwrap(), id: "cs1".into() };
    assert_eq!(word(&outlet.act(&transfer, &clock).await), "refused -2015");
    let plain = venue.outlet(Parts { transfer_to_master: false, ..venue.parts() });
    let fine = plain.check(CredentialRole::Admin, &venue.credential("/admin"), &clock).await;
    assert_eq!(fine, CredentialOutcome::Fine, "nobody asked for it");
}
