//! What a loaded data plane says of packets.

use fw_common::abi::{Engine, Reason, Verdict};
use fw_user::dataplane::{DataPlane, DataPlaneError, Hook, Options, PortPlan, TestContext};

use super::{alone, host_port, listing, open, pin_dir, pinned, plan, private, syn, veth};

#[test]
fn a_private_data_plane_starts_closed() {
    alone(|| {
        let plane = open(Options {
            report: true,
            ..private()
        });
        assert!(!plane.took_over());
        assert_eq!(plane.tables().control().generation, 0);
        assert!(plane.tables().current_set().unwrap().is_none());
        for size in plane.program_sizes().unwrap() {
            println!("{size:?}");
            assert!(size.verified > 0 && size.verified <= 500_000, "{size:?}");
        }
        for hook in Hook::ALL {
            let report = plane
                .test_run(hook, &syn(), &TestContext::default())
                .unwrap()
                .report
                .unwrap();
            assert_eq!(
                (report.verdict, report.reason),
                (Verdict::Drop, Reason::UnknownPort),
                "{hook}"
            );
        }
        plane.tables().set_port(&host_port(1, Engine::Xdp)).unwrap();
        for hook in Hook::ALL {
            let outcome = plane.test_run(hook, &syn(), &TestContext::default()).unwrap();
            let report = outcome.report.unwrap();
            assert_eq!(
                (report.verdict, report.reason),
                (Verdict::Drop, Reason::NoPolicy),
                "{hook}"
            );
            assert_eq!(outcome.frame, syn());
        }
        let counters = plane.tables().counters().unwrap();
        let of = |reason: Reason| {
            counters
                .iter()
                .find(|(number, _)| *number == reason as u8)
                .map(|(_, count)| count.packets)
        };
        assert_eq!(
            (of(Reason::UnknownPort), of(Reason::NoPolicy), counters.len()),
            (Some(3), Some(3), 2)
        );
        assert!(!pin_dir().exists());
    });
}

#[test]
fn denied_packets_arrive_as_events() {
    alone(|| {
        let mut plane = open(Options {
            events_per_window: 4,
            ..private()
        });
        plane.tables().set_port(&host_port(1, Engine::Tc)).unwrap();
        let mut events = plane.events().unwrap();
        assert!(matches!(plane.events(), Err(DataPlaneError::EventsTaken)));
        assert!(events.next_event().is_none());
        let outcome = plane
            .test_run(Hook::TcIn, &syn(), &TestContext::default())
            .unwrap();
        assert_eq!((outcome.returned, outcome.report), (2, None));
        let event = events.next_event().expect("an event");
        assert_eq!(
            (event.ifindex, event.reason, event.egress),
            (1, Reason::NoPolicy as u8, 0)
        );
        assert!(events.next_event().is_none());
        assert_eq!(events.malformed(), 0);
    });
}

#[test]
fn a_question_changes_nothing() {
    alone(|| {
        assert!(matches!(
            DataPlane::open(Options::questions(&pin_dir())),
            Err(DataPlaneError::NotRunning { .. })
        ));
        assert!(!pin_dir().exists());
        let plane = open(pinned());
        plane.tables().set_port(&host_port(1, Engine::Xdp)).unwrap();
        let before = listing(&pin_dir());
        let mut questions = open(Options::questions(&pin_dir()));
        assert_eq!(questions.warnings(), [""; 0]);
        for hook in Hook::ALL {
            let report = questions
                .test_run(hook, &syn(), &TestContext::default())
                .unwrap()
                .report
                .unwrap();
            assert_eq!(report.reason, Reason::NoPolicy);
        }
        assert_eq!(questions.tables().counters().unwrap(), []);
        let lo = PortPlan {
            name: "lo".to_owned(),
            ..plan(1, Engine::Tc, true)
        };
        assert!(matches!(questions.attach(&lo), Err(DataPlaneError::Reporting)));
        drop(questions);
        assert_eq!(plane.tables().counters().unwrap(), []);
        assert_eq!(listing(&pin_dir()), before);
    });
}

#[test]
fn a_flood_of_frames_is_judged() {
    alone(|| {
        let port = veth();
        let plane = open(private());
        plane.tables().set_port(&host_port(port, Engine::Xdp)).unwrap();
        plane.flood(&syn(), port, 10_000, 64).unwrap();
        let counters = plane.tables().counters().unwrap();
        assert_eq!(
            counters.iter().map(|(_, count)| count.packets).sum::<u64>(),
            10_000
        );
    });
}
