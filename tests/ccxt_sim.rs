//! Unmodified ccxt against the simulated exchange. Needs a Python with ccxt: `COUNTERSIGN_PYTHON` names it; where it is
//! missing the test says so and passes, unless `COUNTERSIGN_NO_SKIP` is 1.

#![expect(clippy::disallowed_methods, reason = "a test plays the daemon's part: it spawns, and reads the clock")]

mod support;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign::kernel::time::Time;
use countersign::sim::config::SimConfig;
use countersign::sim::listener::serve;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

fn clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ccxt_trades_and_watches() {
    let Some(python) = support::python::python_with("ccxt.pro") else { return };
    let config = SimConfig::demo(1, 1, clock);
    let key = config.accounts[0].keys[0].clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    tokio::spawn(serve(listener, config, shutdown));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ccxt_sim.py");
    let (rest, ws) = (format!("http://{address}"), format!("ws://{address}/ws-api/v3"));
    let output = Command::new(python)
        .arg(script)
        .args([&rest, &ws, &key.api_key, key.secret.as_ref().unwrap()])
        .output()
        .await
        .unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim_end().ends_with("OK"), "{said}\n{complained}");
}
