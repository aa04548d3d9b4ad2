//! A proxy in between that closes what is idle: pings keep a held lease awake.

use std::path::Path;
use std::process::Command;

use leasehold::clock::boot_now;
use serde_json::json;

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::wait::until;
use super::common::ws::Client;
use super::{LAB, free_port, number, queue, session, skipped};

/// Seconds after which it closes a connection on which nothing passes.
const IDLE_S: u64 = 4;
/// Pings go out every third of it, so twice before the proxy's patience ends.
const TTL_MS: u64 = 6_000;

/// An nginx as people write it for WebSockets, but for the limit.
fn nginx(binary: &Path, dir: &Path, port: u16, broker: u16) -> Process {
    let dir_shown = dir.display();
    let conf = format!(
        "daemon off;
        master_process off;
        pid {dir_shown}/nginx.pid;
        error_log stderr;
        events {{ }}
        http {{
            access_log off;
            client_body_temp_path {dir_shown}/body;
            proxy_temp_path {dir_shown}/proxy;
            fastcgi_temp_path {dir_shown}/fastcgi;
            uwsgi_temp_path {dir_shown}/uwsgi;
            scgi_temp_path {dir_shown}/scgi;
            server {{
                listen 127.0.0.1:{port};
                location / {{
                    proxy_pass http://127.0.0.1:{broker};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                    proxy_read_timeout {IDLE_S}s;
                    proxy_send_timeout {IDLE_S}s;
                }}
            }}
        }}
        "
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, conf).expect("a temporary file can be written");
    let mut process =
        Process::start(Command::new(binary).arg("-p").arg(dir).arg("-c").arg(&file).args(["-e", "stderr"]));
    until("nginx listens", || {
        assert!(process.poll().is_none(), "nginx ended:\n{}", process.stderr.text());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

#[test]
fn an_idle_lease_outlives_the_patience_of_a_proxy() {
    let Some(binary) = std::env::var_os("LEASEHOLD_TEST_NGINX").filter(|path| !path.is_empty()) else {
        return skipped("LEASEHOLD_TEST_NGINX does not name an nginx; no proxy was tried");
    };
    let broker = Broker::with_inventory(LAB);
    let port = free_port();
    let _nginx = nginx(Path::new(&binary), broker.dir(), port, broker.port());
    let mut holder = session(port, "holder", TTL_MS);
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut next = broker.session("next");
    queue(&mut next, &["phone,name=phone-1"]);
    // Without a session there are no pings: nginx ends this one, by which we see that it would.
    let mut idle = Client::connect(port);
    let ends = std::thread::spawn(move || idle.closed());
    // It says nothing by itself and only reads, so that pings are answered.
    assert!(holder.attend(boot_now().plus(3 * 1_000 * IDLE_S)), "nginx closed a connection that was pinged");
    assert_eq!(ends.join().expect("it only reads").0, 1006, "nginx did not close what was idle");
    let state = holder.call("lease.list", json!({}));
    assert_eq!(state["claims"][0]["lease"]["lease"], json!(lease), "{state}");
    assert_eq!(holder.release(lease)["why"], "released");
    assert_eq!(next.notice("lease.granted")["state"], "granted");
}
