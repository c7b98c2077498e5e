//! Programs at interfaces: attached, replaced, refused, left alone.

use std::process::Command;

use fw_common::abi::{Engine, Reason};
use fw_user::dataplane::{
    Change, DataPlane, DataPlaneError, Hook, HookChange, Means, Options, PortPlan, TcFlavour, detach_all,
    list_attached,
};
use nix::sched::{CloneFlags, unshare};

use super::{alone, chain, host_port, ip, open, pin_dir, pinned, plan, private, run, tc, veth};

#[test]
fn links_outlive_the_agent_and_are_replaced_in_place() {
    alone(|| {
        let port = veth();
        let both = [(Hook::XdpIn, Means::Xdp), (Hook::TcOut, tc())];
        let mut first = open(pinned());
        let changes = first.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let expected = both.map(|(hook, means)| HookChange {
            hook,
            means,
            change: Change::Attached,
        });
        assert_eq!(changes, expected);
        let before = first.attached().unwrap();
        drop(first);
        assert_eq!(list_attached(&pin_dir()).unwrap(), before);

        ip("link set left down");
        ip("link set left name renamed");
        ip("link set renamed name left");
        let mut second = open(pinned());
        let changes = second.attach(&plan(port, Engine::Xdp, true)).unwrap();
        assert_eq!(
            changes,
            both.map(|(hook, means)| HookChange {
                hook,
                means,
                change: Change::Replaced
            })
        );
        let after = second.attached().unwrap();
        for (old, new) in before.iter().zip(&after) {
            assert_eq!((old.link_id, old.hook, old.ahead), (new.link_id, new.hook, 0));
            assert_ne!(old.prog_id, new.prog_id);
        }
        let ids: Vec<u32> = second
            .program_sizes()
            .unwrap()
            .iter()
            .map(|size| size.id)
            .collect();
        assert_eq!([after[0].prog_id, after[1].prog_id], [ids[0], ids[2]]);
        drop(second);

        assert_eq!(detach_all(&pin_dir()).unwrap(), after);
        assert_eq!(list_attached(&pin_dir()).unwrap(), []);
        assert!(!run("ip", "link show left").contains("xdp"));
    });
}

#[test]
fn a_change_of_engine_takes_the_new_hook_before_it_gives_the_old_one_up() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let changes = plane.attach(&plan(port, Engine::Tc, false)).unwrap();
        let expected = [
            HookChange {
                hook: Hook::TcIn,
                means: tc(),
                change: Change::Attached,
            },
            HookChange {
                hook: Hook::XdpIn,
                means: Means::Xdp,
                change: Change::Removed,
            },
            HookChange {
                hook: Hook::TcOut,
                means: tc(),
                change: Change::Removed,
            },
        ];
        assert_eq!(changes, expected);
        assert_eq!(plane.attached().unwrap().len(), 1);
        plane.detach(port).unwrap();
        assert_eq!(plane.attached().unwrap(), []);
    });
}

#[test]
fn native_xdp_is_refused_by_name_and_what_guarded_the_port_stays() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        let lo = PortPlan {
            name: "lo".to_owned(),
            ..plan(1, Engine::Xdp, true)
        };
        let error = plane.attach(&lo).unwrap_err();
        assert!(error.suggests_tc(), "{}", chain(&error));
        assert_eq!(plane.attached().unwrap(), []);
        let moved = plane.attach(&plan(port + 1000, Engine::Xdp, true));
        assert!(matches!(moved, Err(DataPlaneError::PortMoved { .. })));

        let mut other = open(private());
        other.attach(&plan(port, Engine::Xdp, false)).unwrap();
        plane.attach(&plan(port, Engine::Tc, true)).unwrap();
        let taken = plane.attach(&plan(port, Engine::Xdp, true)).unwrap_err();
        assert!(
            matches!(taken, DataPlaneError::XdpTaken { .. }) && !taken.suggests_tc(),
            "{}",
            chain(&taken)
        );
        let hooks: Vec<Hook> = plane
            .attached()
            .unwrap()
            .iter()
            .map(|attached| attached.hook)
            .collect();
        assert_eq!(hooks, [Hook::TcIn, Hook::TcOut]);
        drop(other);
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
    });
}

#[test]
fn an_index_that_another_interface_got_is_attached_anew() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        ip("link del left");
        assert_eq!(plane.attached().unwrap(), []);
        ip(&format!("link add left index {port} type veth peer name right"));
        let changes = plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        assert!(
            changes.iter().all(|change| change.change == Change::Attached),
            "{changes:?}"
        );
        assert_eq!(plane.attached().unwrap().len(), 2);
    });
}

#[test]
fn a_clsact_filter_stays_and_there_is_one_of_it() {
    alone(|| {
        let port = veth();
        let options = || Options {
            tc: TcFlavour::Clsact,
            ..pinned()
        };
        // One line for each filter, `bpf chain 0 handle ...`.
        let filters = || {
            run("tc", "filter show dev left ingress")
                .matches(" handle ")
                .count()
        };
        let mut first = open(options());
        let changes = first.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert!(changes.iter().all(|change| *change
            == HookChange {
                means: Means::Clsact,
                change: Change::Attached,
                ..*change
            }));
        let before = first.attached().unwrap();
        assert_eq!(before.len(), 2);
        drop(first);
        assert_eq!((filters(), list_attached(&pin_dir()).unwrap()), (1, before));

        let mut second = open(options());
        let changes = second.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert!(
            changes.iter().all(|change| change.change == Change::Replaced),
            "{changes:?}"
        );
        let ids: Vec<u32> = second
            .program_sizes()
            .unwrap()
            .iter()
            .map(|size| size.id)
            .collect();
        let attached: Vec<u32> = second
            .attached()
            .unwrap()
            .iter()
            .map(|attached| attached.prog_id)
            .collect();
        assert_eq!((filters(), attached), (1, ids[1..].to_vec()));
        drop(second);

        let mut third = open(pinned());
        let changes = third.attach(&plan(port, Engine::Tc, true)).unwrap();
        // With TCX the filters are given up for it; without, they are replaced once more.
        let (removed, left) = if tc() == Means::Tcx { (2, 0) } else { (0, 1) };
        let gone = changes
            .iter()
            .filter(|change| change.change == Change::Removed)
            .count();
        assert_eq!((gone, filters()), (removed, left), "{changes:?}");
        drop(third);
        let mut fourth = open(options());
        fourth.attach(&plan(port, Engine::Tc, true)).unwrap();
        drop(fourth);
        assert_eq!(
            (filters(), detach_all(&pin_dir()).unwrap().len(), filters()),
            (1, 2, 0)
        );
    });
}

#[test]
fn a_private_filter_goes_with_its_process() {
    alone(|| {
        let port = veth();
        let mut plane = open(Options {
            tc: TcFlavour::Clsact,
            ..private()
        });
        plane.attach(&plan(port, Engine::Tc, true)).unwrap();
        assert_eq!(plane.attached().unwrap().len(), 2);
        drop(plane);
        assert!(!run("tc", "filter show dev left ingress").contains("dpufw"));
    });
}

#[test]
fn an_attached_port_without_policy_passes_nothing() {
    alone(|| {
        let port = veth();
        ip("addr add 10.9.0.1/24 dev left");
        let mut plane = open(pinned());
        plane.tables().set_port(&host_port(port, Engine::Xdp)).unwrap();
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let output = Command::new("ping")
            .args(["-c", "1", "-W", "1", "10.9.0.2"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let counters = plane.tables().counters().unwrap();
        assert!(
            counters
                .iter()
                .any(|(reason, count)| *reason == Reason::NoPolicy as u8 && count.packets > 0),
            "{counters:?}"
        );
    });
}

#[test]
fn the_links_of_another_namespace_are_left_alone() {
    alone(|| {
        let port = veth();
        let mut plane = open(pinned());
        plane.attach(&plan(port, Engine::Xdp, true)).unwrap();
        let elsewhere = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            (
                DataPlane::open(pinned()).map(drop),
                detach_all(&pin_dir()).map(drop),
            )
        });
        let (opened, detached) = elsewhere.join().unwrap();
        assert!(matches!(opened, Err(DataPlaneError::OtherNamespace { .. })));
        assert!(matches!(detached, Err(DataPlaneError::OtherNamespace { .. })));
        assert_eq!(plane.attached().unwrap().len(), 2);
    });
}
