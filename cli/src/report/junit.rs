//! JUnit XML for `govc test`: a test case for each test.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::failure::Failure;

/// What became of one test.
pub struct Outcome {
    /// Its title.
    pub title: String,
    /// The file that it stands in.
    pub file: String,
    /// What kind of failure it would be: the code of a diagnostic, `coverage`.
    pub kind: &'static str,
    /// What is wrong with each packet that failed, in one line, and with the source.
    pub failures: Vec<(String, String)>,
}

/// The document.
///
/// # Errors
/// It cannot be written as XML.
pub fn render(package: &str, outcomes: &[Outcome]) -> Result<String, Failure> {
    let mut suite = TestSuite::new(package);
    for outcome in outcomes {
        let status = if outcome.failures.is_empty() {
            TestCaseStatus::success()
        } else {
            let (messages, shown): (Vec<&str>, Vec<&str>) = outcome
                .failures
                .iter()
                .map(|(message, shown)| (message.as_str(), shown.as_str()))
                .unzip();
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(outcome.kind);
            status.set_message(messages.join("; "));
            status.set_description(shown.join("\n"));
            status
        };
        let mut case = TestCase::new(outcome.title.as_str(), status);
        case.set_classname(outcome.file.as_str());
        suite.add_test_case(case);
    }
    let mut report = Report::new("govc");
    report.add_test_suite(suite);
    report
        .to_string()
        .map_err(|e| Failure::Machine { message: format!("cannot write XML: {e}"), help: None })
}
