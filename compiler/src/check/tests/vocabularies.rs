//! GOV3xxx, as far as no lock is needed.

use super::*;

#[test]
fn domains() {
    for (item, at) in [
        ("constraint x, y", "x"),
        ("operation g { x }", "g"),
        ("residency eu = {de}", "eu"),
        ("route r", "r"),
        ("scope d { x }", "d"),
    ] {
        let words = ["package `a` has none", "`domain NAME = NUMBER {}`"];
        assert_told(&[format!("package a\n{item}")], codes::NO_DOMAIN, at, &words);
    }
    let texts = ["package a\ndomain d = 1", "package a\ndomain e = 2"];
    assert_told(&texts, codes::SECOND_DOMAIN, "e", &["package `a` has a second domain"]);
    for number in ["0", "65536"] {
        let texts = [format!("package a\ndomain d = {number}")];
        assert_told(&texts, codes::BAD_DOMAIN_NUMBER, number, &["between 1 and 65535"]);
    }
    let texts = ["package a\ndomain d = 7", "package b\ndomain e = 7"];
    assert_told(&texts, codes::DOMAIN_NUMBER_TAKEN, "7", &["domain number 7 is used twice"]);
    let texts = ["package a\ndomain d = 7\nscope e { x }"];
    assert_told(&texts, codes::FOREIGN_SCOPES, "e", &["scopes of `e`", "write `scope d {}`"]);
}

#[test]
fn scopes() {
    let scopes = |entries: &str| {
        [format!("package a\ndomain d = 7 {{ level {{ low < high }} }}\nscope d {{ {entries} }}")]
    };
    assert_told(&scopes("x[3] { y }"), codes::COUNT_ON_GROUP, "3", &["`x` groups other scopes"]);
    assert_told(&scopes("x { y[0] }"), codes::COUNT_ZERO, "0", &["`x.y` is a batch of no"]);
    let words = ["above its parent's level `low`", "lower it to `low`"];
    assert_told(&scopes("x { y at high }"), codes::LEVEL_ABOVE_PARENT, "high", &words);
    assert_good(&scopes("x at high { y at low { z at low } }"));
    let texts = scopes("x at hihg");
    assert_told(&texts, codes::UNKNOWN_NAME, "hihg", &["did you mean `high`?"]);
    let texts = scopes("x in {fin}");
    assert_told(&texts, codes::UNKNOWN_NAME, "fin", &["compartments {}"]);
}
