//! `govc probe`: what a path lets through, over routers that drop this or that.

use std::{net::IpAddr, process::Output};

use govc_netlab::veth;
use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, MTU, api},
    node::address,
    router::{DROPS_OPTIONS, DROPS_TUNNELS, nft_available, set_rules},
};
use serde_json::Value;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

fn available() -> bool {
    kernel_available() && nft_available()
}

fn probe(lab: &Lab, to: IpAddr, more: &[&str]) -> Output {
    let to = to.to_string();
    let arguments = [&["probe", &to, "--timeout", "200"], more].concat();
    lab.a.run_govc(GOVC, &arguments)
}

/// What is told about B, with the exit code.
fn probed(lab: &Lab, v6: bool) -> (Value, Option<i32>) {
    let output = probe(lab, address(2, 2, v6), &["--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr))
    });
    (value, output.status.code())
}

fn came(value: &Value) -> [bool; 4] {
    ["bare", "option", "datagram", "tunnel"].map(|what| value[what].as_bool().unwrap())
}

#[test]
fn routers_that_drop_something_are_told() {
    if !available() {
        return;
    }
    let lab = Lab::bare();
    for (rules, came_through, carriage, code) in [
        ("", [true, true, true, true], "option", 0),
        (DROPS_TUNNELS, [true, true, true, false], "option", 0),
        (DROPS_OPTIONS, [true, false, true, true], "tunnel", 10),
    ] {
        set_rules(&lab.router, rules);
        for v6 in BOTH_VERSIONS {
            let (value, ended) = probed(&lab, v6);
            assert_eq!(came(&value), came_through, "{rules} v6 {v6}: {value}");
            assert_eq!((value["carriage"].as_str(), ended), (Some(carriage), Some(code)));
            assert_eq!(value["path_mtu"], MTU);
            let line = format!("carriage tunnel to {} on ZONE", address(2, 2, v6));
            assert_eq!(value["policy"].as_str(), (carriage == "tunnel").then_some(line.as_str()));
        }
    }
    set_rules(&lab.router, &format!("{DROPS_OPTIONS}\n{DROPS_TUNNELS}"));
    for v6 in BOTH_VERSIONS {
        let (value, ended) = probed(&lab, v6);
        assert_eq!((value["carriage"].as_str(), ended), (Some("neither"), Some(11)), "{value}");
    }
    set_rules(&lab.router, "counter drop");
    for v6 in BOTH_VERSIONS {
        let (value, ended) = probed(&lab, v6);
        assert_eq!(came(&value), [false; 4]);
        assert_eq!((value["carriage"].as_str(), ended), (Some("unknown"), Some(12)), "{value}");
        assert!(value["path_mtu"].is_null());
    }
}

#[test]
fn narrow_links_are_told() {
    if !available() {
        return;
    }
    let lab = Lab::bare();
    lab.router.set_mtu("to_b", 1400).unwrap();
    for silent in [false, true] {
        // Routers that do not tell are found out by trying.
        let quiet = "icmp type destination-unreachable icmp code frag-needed drop\n\
                     icmpv6 type packet-too-big drop";
        set_rules(&lab.router, "");
        if silent {
            set_output_rules(&lab, quiet);
        }
        for v6 in BOTH_VERSIONS {
            let (value, _) = probed(&lab, v6);
            assert_eq!(value["path_mtu"], 1400, "silent {silent}: {value}");
            assert_eq!(value["inner_mtu"], 1400 - 32);
        }
    }
}

/// Makes the router keep quiet.
fn set_output_rules(lab: &Lab, rules: &str) {
    let text = format!(
        "table inet quiet {{ chain out {{ type filter hook output priority 0;\n{rules}\n}}\n}}\n"
    );
    let path = std::env::temp_dir().join(format!("govc-quiet-{}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let status =
        lab.router.run(|| std::process::Command::new("nft").arg("-f").arg(&path).status().unwrap());
    let _ = std::fs::remove_file(&path);
    assert!(status.success());
}

#[test]
fn a_policy_in_force_is_not_probed_through() {
    if !available() {
        return;
    }
    let lab = Lab::bare();
    veth(&lab.a.namespace, "other", &lab.router, "other", None).unwrap();
    lab.a.apply(&api(), &["eth0"]);
    for more in [&[][..], &["--iface", "eth0"]] {
        let output = probe(&lab, address(2, 2, false), more);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("a policy is in force on `eth0`"), "{told}");
    }
}

#[test]
fn people_are_told_what_to_write() {
    if !available() {
        return;
    }
    let lab = Lab::bare();
    set_rules(&lab.router, DROPS_OPTIONS);
    let output = probe(&lab, address(2, 2, false), &["--iface", "eth0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("carriage tunnel to 10.77.2.2 on ZONE"), "{text}");
    assert!(text.contains("packets up to 1432 bytes"), "{text}");
    let output = probe(&lab, "203.0.113.1".parse().unwrap(), &["--iface", "nothing"]);
    assert_eq!(output.status.code(), Some(3));
}
