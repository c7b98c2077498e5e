//! The results as JUnit XML, which CI systems read.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::Outcome;

/// One test suite, named after the policy's file, with a test case for each expectation.
#[must_use]
pub fn junit(file: &str, outcomes: &[Outcome]) -> Report {
    let mut suite = TestSuite::new(file);
    for outcome in outcomes {
        suite.add_test_case(case(outcome));
    }
    let mut report = Report::new("dpufw test");
    report.add_test_suite(suite);
    report
}

fn case(outcome: &Outcome) -> TestCase {
    let status = match &outcome.problem {
        None => TestCaseStatus::success(),
        Some(problem) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status
                .set_message(problem.as_str())
                .set_type("expectation")
                .set_description(format!(
                    "{}:{}: {}: {problem}",
                    outcome.file, outcome.line, outcome.flow
                ));
            status
        }
    };
    let name = format!(
        "{} is {} (line {})",
        outcome.flow,
        outcome.expected.name(),
        outcome.line
    );
    let mut case = TestCase::new(name, status);
    case.set_classname(outcome.file.as_str());
    if let Ok(time) = Duration::try_from_secs_f64(outcome.seconds) {
        case.set_time(time);
    }
    case
}

#[cfg(test)]
mod tests {
    use fw_policy::model::RuleAction;

    use super::{Outcome, junit};

    fn outcome(problem: Option<&str>) -> Outcome {
        Outcome {
            flow: "tcp a b:22".into(),
            file: "p<1>.yaml".into(),
            line: 7,
            expected: RuleAction::Allow,
            sent: None,
            way: None,
            seen: None,
            problem: problem.map(str::to_owned),
            seconds: 0.25,
        }
    }

    #[test]
    fn failures_are_counted_and_named_and_text_is_escaped() {
        let report = junit("p<1>.yaml", &[outcome(None), outcome(Some("it is <denied>"))]);
        let text = report.to_string().expect("XML");
        assert!(text.contains("tests=\"2\""), "{text}");
        assert!(text.contains("failures=\"1\""), "{text}");
        assert!(text.contains("it is &lt;denied&gt;"), "{text}");
        assert!(text.contains("p&lt;1&gt;.yaml"), "{text}");
        assert_eq!(text.matches("<testcase ").count(), 2);
    }
}
