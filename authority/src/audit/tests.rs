use std::fs;

use super::*;
use crate::testing::key;

fn record(time: u64) -> Record {
    Record {
        time,
        event: Event::BundleAccepted,
        note: "by hand".into(),
        digests: [("manifest".into(), Digest::of(b"manifest"))].into(),
        keys: vec![key(1).id(), key(2).id()],
    }
}

/// A log of this many lines.
fn log(count: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    for time in 0..count {
        assert_eq!(append(&path, record(time)).unwrap().index, time);
    }
    (dir, path)
}

/// The first bad line and why.
fn fault(path: &Path) -> (u64, Fault) {
    match verify(path, None).unwrap_err() {
        AuditError::Line { line, fault, .. } => (line, fault),
        other => panic!("{other}"),
    }
}

#[test]
fn lines_hold_each_other() {
    let (_dir, path) = log(3);
    let head = verify(&path, None).unwrap();
    assert_eq!(head.count, 3);
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().next_back().unwrap();
    assert_eq!(head.last, Some(Digest::of(last.as_bytes())));
    assert!(text.starts_with(
        r#"{"index":0,"previous":null,"record":{"time":0,"event":"bundle_accepted","#
    ));
    fs::write(&path, "").unwrap();
    assert_eq!(verify(&path, None).unwrap(), Head::default());
    assert!(matches!(verify(&path.with_extension("none"), None), Err(AuditError::File { .. })));
}

#[test]
fn every_flipped_byte_is_noticed_at_its_line_or_the_next() {
    let (_dir, path) = log(3);
    let whole = fs::read(&path).unwrap();
    let known = verify(&path, None).unwrap();
    let mut line = 1;
    for at in 0..whole.len() {
        let mut wrong = whole.clone();
        wrong[at] ^= [1, 2, 0x20][at % 3];
        match check(&mut wrong.as_slice(), &path, Some(&known)).unwrap_err() {
            AuditError::Line { line: found, .. } => {
                assert!(found == line || found == line + 1, "byte {at}: {found}, {line}");
            }
            other => panic!("{other}"),
        }
        line += u64::from(whole[at] == b'\n');
    }
}

#[test]
fn lines_cannot_be_removed_added_or_moved() {
    let (_dir, path) = log(4);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (order, line) in [
        (&[1, 2, 3][..], 1),
        (&[0, 2, 3], 2),
        (&[0, 1, 1, 2, 3], 3),
        (&[0, 2, 1, 3], 2),
        (&[0, 0, 1, 2, 3], 2),
    ] {
        let text: String = order.iter().map(|at| format!("{}\n", lines[*at])).collect();
        fs::write(&path, text).unwrap();
        let (found, fault) = fault(&path);
        assert_eq!(found, line, "{order:?}");
        assert!(matches!(fault, Fault::Index { .. }));
    }
    // Renumbering does not help.
    let renumbered = lines[2].replacen("\"index\":2", "\"index\":1", 1);
    fs::write(&path, format!("{}\n{renumbered}\n", lines[0])).unwrap();
    assert_eq!(fault(&path), (2, Fault::Chain));
    fs::write(&path, format!("{}\n\n", lines[0])).unwrap();
    assert!(matches!(fault(&path), (2, Fault::Form(_))));
}

#[test]
fn a_shortened_log_is_noticed_by_who_knew_it() {
    let (_dir, path) = log(2);
    let two = verify(&path, None).unwrap();
    append(&path, record(9)).unwrap();
    let three = verify(&path, Some(&two)).unwrap();
    assert_eq!(verify(&path, Some(&Head::default())).unwrap(), three);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    fs::write(&path, lines[..2].concat()).unwrap();
    assert_eq!(verify(&path, None).unwrap(), two);
    let error = verify(&path, Some(&three)).unwrap_err();
    assert!(matches!(error, AuditError::Line { line: 3, fault: Fault::Known, .. }));
    // A new log of the same length is another one.
    fs::remove_file(&path).unwrap();
    for time in 5..8 {
        append(&path, record(time)).unwrap();
    }
    let error = verify(&path, Some(&three)).unwrap_err();
    assert!(matches!(error, AuditError::Line { line: 3, fault: Fault::Known, .. }));
}

#[test]
fn a_torn_line_is_recognised_and_mended() {
    let (_dir, path) = log(3);
    let whole = fs::read(&path).unwrap();
    let start = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for len in (start + 1..whole.len()).step_by(31) {
        fs::write(&path, &whole[..len]).unwrap();
        assert_eq!(fault(&path), (3, Fault::Torn));
        let error = append(&path, record(7)).unwrap_err();
        assert!(matches!(error, AuditError::End { fault: Fault::Torn, .. }));
        assert!(mend(&path, 8, None).unwrap().is_some());
        assert_eq!(verify(&path, None).unwrap().count, 3);
        assert!(mend(&path, 9, None).unwrap().is_none());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().next_back().unwrap().contains("log_mended"));
    }
    // The first line too,
    fs::write(&path, &whole[..5]).unwrap();
    assert!(mend(&path, 8, None).unwrap().is_some());
    assert_eq!(verify(&path, None).unwrap().count, 1);
    // but not a file that is no log.
    fs::write(&path, vec![b'x'; LINE_LEN_MAX + 2]).unwrap();
    assert!(matches!(mend(&path, 8, None), Err(AuditError::End { fault: Fault::TooLong, .. })));
    assert!(matches!(append(&path, record(8)), Err(AuditError::End { fault: Fault::TooLong, .. })));
    assert_eq!(fault(&path), (1, Fault::TooLong));
}

#[test]
fn lines_go_on_from_where_the_log_was_known_to_end() {
    let (_dir, path) = log(3);
    let known = verify(&path, None).unwrap();
    check_end(&path, Some(&known)).unwrap();
    check_end(&path, None).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    // Who could not note it any more may have appended.
    append(&path, record(9)).unwrap();
    check_end(&path, Some(&known)).unwrap();
    let longer = fs::read_to_string(&path).unwrap();
    fs::write(&path, longer.replacen("\"time\":2", "\"time\":3", 1)).unwrap();
    let error = check_end(&path, Some(&known)).unwrap_err();
    assert!(matches!(error, AuditError::Line { line: 3, fault: Fault::Known, .. }), "{error}");
    // A torn line is told before anything happens that could not be written behind it.
    fs::write(&path, format!("{text}{{\"x")).unwrap();
    let error = check_end(&path, Some(&known)).unwrap_err();
    assert!(matches!(error, AuditError::End { fault: Fault::Torn, .. }), "{error}");
    for (log, missing) in [
        (text.replacen("\"time\":2", "\"time\":3", 1), "the last line is not the one"),
        (lines[..2].concat(), "1 of 3 known lines are missing"),
        (text[..text.len() - 9].to_owned(), "1 of 3 known lines are missing"),
        (String::new(), "3 of 3 known lines are missing"),
    ] {
        fs::write(&path, log).unwrap();
        let error = check_end(&path, Some(&known)).unwrap_err();
        assert!(matches!(error, AuditError::End { .. }), "{missing}: {error}");
        let head = mend(&path, 8, Some(&known)).unwrap().unwrap();
        assert_eq!(verify(&path, Some(&head)).unwrap(), head);
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().next_back().unwrap();
        let digest = known.last.unwrap().to_string();
        assert!(last.contains(missing) && last.contains(&digest), "{last}");
        assert_eq!(mend(&path, 9, Some(&head)).unwrap(), None);
    }
    fs::remove_file(&path).unwrap();
    assert!(check_end(&path, Some(&known)).is_err());
    check_end(&path, None).unwrap();
}

#[test]
fn lines_have_a_longest() {
    let (_dir, path) = log(1);
    let long = |len| Record { note: "x".repeat(len), ..record(1) };
    let spare = LINE_LEN_MAX - form::write(&append(&path, long(0)).unwrap()).unwrap().len() - 1;
    append(&path, long(spare)).unwrap();
    append(&path, long(spare)).unwrap();
    let error = append(&path, long(spare + 1)).unwrap_err();
    assert!(matches!(error, AuditError::End { fault: Fault::TooLong, .. }));
    assert_eq!(verify(&path, None).unwrap().count, 4);
}

#[test]
fn many_may_append_at_once() {
    let (_dir, path) = log(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for time in 0..10 {
                    append(path, record(thread * 100 + time)).unwrap();
                }
            });
        }
    });
    assert_eq!(verify(&path, None).unwrap().count, 40);
}
