//! Access control: the bearer token, and the client address that a trusted proxy forwards.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::client::Scan;
use crate::process::{Folder, Service, run, until};

/// Writes a secret into a file that only its owner can read.
pub(crate) fn write_secret(folder: &Folder, text: &str) -> String {
    let path = folder.write("token", text);
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, owner_only).expect("the test owns the file");
    path
}

#[test]
fn a_scan_needs_the_token_and_nothing_else_does() {
    let folder = Folder::new("token");
    let file = write_secret(&folder, "open sesame".replace(' ', "-").as_str());
    let service = Service::start(&["--token-file", &file]);
    let port = service.address.port();
    let targets = [
        format!("/open-ports?domain=127.0.0.1&ports={port}"),
        format!("/probe?target=127.0.0.1&ports={port}"),
    ];
    for target in &targets {
        for fields in ["", "Authorization: Bearer open-sesam\r\n", "Authorization: Basic x\r\n"] {
            let answer = service.request("GET", target, fields);
            answer.check_problem(401, "UNAUTHORIZED");
            answer.check("WWW-Authenticate", answer.field("WWW-Authenticate"), Some("Bearer"));
        }
        let right = "Authorization: Bearer open-sesame\r\n";
        service.request("GET", target, right).check_status(200);
    }
    // Without a token, not even the errors of a request are reported.
    service.get("/open-ports").check_problem(401, "UNAUTHORIZED");
    for open in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/"] {
        service.get(open).check_status(200);
    }
}

#[test]
fn a_changed_token_file_replaces_the_token_and_a_bad_one_does_not() {
    let folder = Folder::new("token-change");
    let file = write_secret(&folder, "first\n");
    let service = Service::start(&["--token-file", &file]);
    let target = format!("/open-ports?domain=127.0.0.1&ports={}", service.address.port());
    let status = |token: &str| {
        service.request("GET", &target, &format!("Authorization: Bearer {token}\r\n")).status
    };
    assert_eq!((status("first"), status("second")), (200, 401));
    write_secret(&folder, "second\n");
    until("the second token is known", || (status("second") == 200).then_some(()));
    assert_eq!(status("first"), 401);
    write_secret(&folder, "");
    service_keeps(&service, || status("second"));
    std::fs::remove_file(&file).expect("the file can be removed");
    service_keeps(&service, || status("second"));
}

#[test]
fn a_file_that_becomes_a_fifo_does_not_block_the_service() {
    /// This is longer than the age at which resolv.conf and the hosts file are read again.
    const AGE: Duration = Duration::from_secs(6);
    let folder = Folder::new("token-fifo");
    let token = write_secret(&folder, "first\n");
    let hosts = folder.write("hosts", "127.0.0.1 known\n");
    let resolv_conf = folder.write("resolv.conf", "nameserver 127.0.0.53\n");
    let service =
        Service::start(&["--token-file", &token, "--hosts", &hosts, "--resolv-conf", &resolv_conf]);
    let target = format!("/open-ports?domain=known&ports={}", service.address.port());
    let status = || service.request("GET", &target, "Authorization: Bearer first\r\n").status;
    assert_eq!(status(), 200);
    for name in ["token", "hosts", "resolv.conf"] {
        folder.fifo(name);
    }
    service_keeps(&service, status);
    let since = Instant::now();
    until("every file was read again", || {
        assert_eq!(status(), 200, "the former hosts stay in force");
        (since.elapsed() > AGE).then_some(())
    });
}

/// Checks that the former token stays in force and that the log contains a warning.
fn service_keeps(service: &Service, status: impl Fn() -> u16) {
    let warned =
        || service.log_lines().iter().filter(|line| line.contains("msg=\"token kept\"")).count();
    let before = warned();
    until("the log contains a warning", || {
        assert_eq!(status(), 200, "the former token stays in force");
        (warned() > before).then_some(())
    });
}

#[test]
fn a_token_file_that_is_missing_empty_or_world_readable_ends_with_71() {
    let folder = Folder::new("token-bad");
    let empty = write_secret(&folder, "");
    let world_readable = folder.write("everybodys", "secret\n");
    std::fs::set_permissions(&world_readable, std::fs::Permissions::from_mode(0o644))
        .expect("the test owns the file");
    for (file, word) in [
        (empty.as_str(), "holds no token"),
        ("/dev/null", "holds no token"),
        (world_readable.as_str(), "everybody can read it"),
        ("/nonexistent/token", "No such file"),
    ] {
        let ended = run(None, &["--listen", "127.0.0.1:0", "--token-file", file]);
        assert_eq!(ended.code, Some(71), "{file}: {}", ended.stderr);
        assert!(ended.stderr.contains(word), "{file}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn a_client_behind_a_trusted_proxy_is_identified_by_its_forwarded_address() {
    let service = Service::start(&["--trust-proxy", "127.0.0.0/8"]);
    let target = format!("/open-ports?domain=127.0.0.1&ports={}", service.address.port());
    let fields = "X-Forwarded-For: 203.0.113.5, 198.51.100.9\r\n";
    Scan::of(service.request("GET", &target, fields));
    service.log_line(&["msg=request", "client=198.51.100.9", "route=/open-ports"]);

    let without_proxies = Service::start(&[]);
    let target = format!("/open-ports?domain=127.0.0.1&ports={}", without_proxies.address.port());
    Scan::of(without_proxies.request("GET", &target, fields));
    without_proxies.log_line(&["msg=request", "client=127.0.0.1", "route=/open-ports"]);
}

#[test]
fn a_service_that_others_can_reach_without_a_token_warns_at_start() {
    let folder = Folder::new("token-reach");
    let file = write_secret(&folder, "secret");
    let open = Service::start_exactly(&["--listen", "0.0.0.0:0"]);
    open.log_line(&["level=warn", "msg=\"open to all\""]);
    for args in
        [vec!["--listen", "0.0.0.0:0", "--token-file", &file], vec!["--listen", "127.0.0.1:0"]]
    {
        let service = Service::start_exactly(&args);
        service.log_line(&["msg=try"]);
        assert!(!service.log_lines().iter().any(|line| line.contains("open to all")), "{args:?}");
    }
}
