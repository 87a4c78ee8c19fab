//! Sealed key files and key rings: whatever is in them, they are opened or refused, and messages hold
//! nothing of what they hold.
#![no_main]

use std::sync::LazyLock;

use govc_authority::{
    key::SigningKey,
    sealed::{Kind, Opener, Recipients, open, seal},
};
use govc_loader::keyring::DomainKeys;
use libfuzzer_sys::fuzz_target;
use zeroize::Zeroizing;

mod signed;

/// A key pair out of the tests of the age crate: no secret.
const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const PRIVATE: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
/// The signing key of seed 1, sealed for it.
const FILE: &str = "\
-----BEGIN AGE ENCRYPTED FILE-----\n\
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBYM2Jnai9xTWhuV1ZGOUZ5\n\
T29IK015WnpLNW0yQVBsdURlV3lLRGhuT1JRCm1UTFdZMkZtV2FpNzlNZGpsbGls\n\
LzNsUm5yL1oxTEsxQVNEdG8wRXRWT1EKLT4gQ11PWmhET0QtZ3JlYXNlIEoqQyog\n\
U0UgeUgxOksgIjhqaQp3ZTV1OVd3RXNubi96SmtoL3JDaVZTbFo2ajNESHFsbmNa\n\
N2I0bUNSV1ZiUjdHSjBCQ09hdk5XQkJQMVExQXFjCnhPTVpRSGdyQks3UmhZOUlu\n\
VXR3ZEdVczJSOGlpYjBidktkb2RQVlN6SGdkZzFzRjNMeUdKbGRiNFpVbEg5aEcK\n\
T2cKLS0tIDE2VHA3SndDYUd6OW9XaHlVMVB3VVJzeWhsY3Q5MUpzWUk2Qmg2eXdS\n\
MTgK1WLce6WhiQTswT8kqCMPM7p8RqvNHnYxpd6Z12RzbsRjof8Wj/Shzr5fjbzx\n\
YWE/XEsjtNAMheXlPXq9FdenSumxdJGt/VZhyljKZ1WH+x5cGGixGzKnlJuk1iet\n\
qZY=\n\
-----END AGE ENCRYPTED FILE-----\n\
";
const RING: &str = r#"{"version":1,"domain":"acme","number":7,"epoch_shift":14,"epochs":[
{"epoch":54792,"key":"00112233445566778899aabbccddeeff"},
{"epoch":54793,"key":"ffeeddccbbaa99887766554433221100"}]}"#;

static OPENER: LazyLock<Opener> =
    LazyLock::new(|| Opener::key(&Zeroizing::new(PRIVATE.into())).expect("an age key"));
static TO: LazyLock<Recipients> = LazyLock::new(|| Recipients::keys([PUBLIC]).expect("an age key"));

fuzz_target!(|data: &[u8]| {
    let _ = SigningKey::open(data, &OPENER);
    if let Ok(key) = SigningKey::open(&signed::edited(FILE.as_bytes(), data), &OPENER) {
        assert_eq!(key.id(), signed::key(1).id(), "a changed file was opened");
    }
    // Whatever was sealed comes back, and is a key only if it is one.
    if let Ok(sealed) = seal(Kind::SigningKey, data, &TO) {
        assert_eq!(open(Kind::SigningKey, &sealed, &OPENER).expect("ours").as_slice(), data);
        assert!(open(Kind::KeyRing, &sealed, &OPENER).is_err());
        let _ = SigningKey::open(&sealed, &OPENER);
    }
    for text in [data, &signed::edited(RING.as_bytes(), data)] {
        let Ok(text) = std::str::from_utf8(text) else { continue };
        match DomainKeys::from_text(text) {
            Ok(keys) => assert!(keys.entries(0).count() <= 16 && keys.epochs().count() < 1 << 20),
            Err(why) => assert!(why.len() < 200, "{why}"),
        }
    }
});
