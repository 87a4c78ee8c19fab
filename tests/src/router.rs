//! Routers that are hostile to what labels ride in, or that put in other addresses, made with nftables.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use govc_netlab::Namespace;

/// What a router does to packets that it passes on, as lines of a chain.
pub const DROPS_OPTIONS: &str = "ip hdrlength > 5 counter drop\nexthdr dst exists counter drop";
/// Likewise.
pub const DROPS_TUNNELS: &str = "udp dport 6081 counter drop";

/// Whether there is an nft. Without it tests are skipped, as those that need the kernel are.
pub fn nft_available() -> bool {
    let available = Command::new("nft").arg("--version").output().is_ok();
    if !available {
        assert!(
            std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(),
            "GOVC_REQUIRE_KERNEL is set, but there is no nft"
        );
        println!("skipped: needs nft");
    }
    available
}

/// Makes a router do these things to what it passes on, and count what is left.
pub fn set_rules(router: &Namespace, rules: &str) {
    let text = format!(
        "table inet hostile {{}}\n\
         delete table inet hostile\n\
         table inet hostile {{\n\
         chain passing {{\n\
         type filter hook forward priority 0;\n\
         {rules}\n\
         udp dport 6081 counter accept\n\
         counter comment \"other\"\n\
         }}\n\
         }}\n"
    );
    load(router, &text);
}

/// Loads a ruleset there.
pub fn load(router: &Namespace, text: &str) {
    let output = router.run(|| {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nft starts");
        nft.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("rules");
        nft.wait_with_output().expect("nft ends")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Packets that a router has passed on: in tunnels, and others.
pub fn passed(router: &Namespace) -> (u64, u64) {
    let output = router.run(|| {
        Command::new("nft").args(["list", "table", "inet", "hostile"]).output().expect("nft")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |mark: &str| {
        let mut lines = text.lines().filter(|line| !line.contains("policy"));
        let line = lines.find(|line| line.contains(mark)).expect("a counter");
        let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).expect("a number").parse::<u64>().expect("a number")
    };
    (count("accept"), count("other"))
}
