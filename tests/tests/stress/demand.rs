//! How steadily two threads sent: a limit can be reached only while somebody asks for more than it allows.
//!
//! The kernel takes a CPU for other things now and then, and a virtual machine's host takes both. While neither thread sends,
//! nothing passes, which is no fault of the limit: a bucket makes good for a pause as long as its burst lasts, and no longer.

use std::time::{Duration, Instant};

/// One call that ran the program, or some in a row.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub begun: Instant,
    pub ended: Instant,
    pub packets: u32,
}

impl Call {
    /// Seconds a packet.
    fn cost(&self) -> f64 {
        (self.ended - self.begun).as_secs_f64() / f64::from(self.packets.max(1))
    }
}

/// A call that took so many times what its packets usually cost was interrupted.
const INTERRUPTED: f64 = 1.5;

/// Time in which neither thread was certainly sending, less what the burst makes good for in each pause. `cover`: how long the
/// burst lasts at the limit's rate.
pub fn unserved(calls: &[Vec<Call>; 2], cover: Duration) -> Duration {
    let mut costs: Vec<f64> = calls.iter().flatten().map(Call::cost).collect();
    costs.sort_by(f64::total_cmp);
    let Some(usual) = costs.get(costs.len() / 2) else {
        return Duration::MAX;
    };
    let steady = |call: &&Call| {
        let usually = usual * f64::from(call.packets);
        (call.ended - call.begun).as_secs_f64() <= INTERRUPTED * usually + cover.as_secs_f64()
    };
    let mut busy: Vec<&Call> = calls.iter().flatten().filter(steady).collect();
    busy.sort_by_key(|call| call.begun);
    let all = calls.iter().flatten();
    let (Some(first), Some(last)) = (
        all.clone().map(|call| call.begun).min(),
        all.map(|call| call.ended).max(),
    ) else {
        return Duration::MAX;
    };
    let (mut served_until, mut lost) = (first, Duration::ZERO);
    for call in busy {
        lost += call
            .begun
            .saturating_duration_since(served_until)
            .saturating_sub(cover);
        served_until = served_until.max(call.ended);
    }
    lost + last.saturating_duration_since(served_until).saturating_sub(cover)
}

#[test]
fn a_pause_of_both_is_found_and_one_of_one_is_not() {
    let zero = Instant::now();
    let ms = Duration::from_millis;
    let calls = |spans: &[(u64, u64)]| -> Vec<Call> {
        let call = |&(begun, ended)| Call {
            begun: zero + ms(begun),
            ended: zero + ms(ended),
            packets: 1000,
        };
        spans.iter().map(call).collect()
    };
    let steady: Vec<(u64, u64)> = (0..100).map(|number| (10 * number, 10 * number + 10)).collect();
    let pause = |from: u64, to: u64| -> Vec<(u64, u64)> {
        let outside = |&(begun, ended): &(u64, u64)| ended <= from || begun >= to;
        steady.iter().copied().filter(outside).collect()
    };
    let lost = |a: &[(u64, u64)], b: &[(u64, u64)], cover| unserved(&[calls(a), calls(b)], ms(cover));
    assert_eq!(lost(&steady, &steady, 0), ms(0));
    assert_eq!(lost(&pause(100, 500), &steady, 0), ms(0));
    assert_eq!(lost(&pause(100, 500), &pause(400, 600), 0), ms(100));
    assert_eq!(lost(&pause(100, 500), &pause(400, 600), 30), ms(70));
    // Calls that are interrupted serve nobody.
    let mut slow = pause(100, 200);
    slow.push((100, 200));
    assert_eq!(lost(&slow, &slow, 0), ms(100));
    assert_eq!(unserved(&[Vec::new(), Vec::new()], ms(0)), Duration::MAX);
}
