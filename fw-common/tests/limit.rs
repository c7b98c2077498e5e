//! The limiter against `governor` (an independent GCRA), against the definition of conformance, and from two threads.

use std::num::NonZeroU32;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use fw_common::abi::Shared;
use fw_common::limit::{MAX_BURST, Rate, RateError, SKEW, TRIES, Taken, admit, give_back, min_burst, take};
use governor::clock::{Clock, FakeRelativeClock};
use governor::{Quota, RateLimiter};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A bucket with its clock, which may start anywhere, also just before time wraps.
struct Bucket {
    rate: Rate,
    tat: u64,
    now: u64,
}

impl Bucket {
    fn new(rate: Rate, now: u64) -> Self {
        Self { rate, tat: 0, now }
    }

    fn check(&mut self, units: u32) -> bool {
        let next = admit(self.tat, self.now, self.rate.cost(units), self.rate.burst);
        self.tat = next.unwrap_or(self.tat);
        next.is_some()
    }

    fn advance(&mut self, ns: u64) {
        self.now = self.now.wrapping_add(ns);
    }
}

/// `governor`: one cell every `period` ns, `burst` at once, as a closure over (time to pass in ns, cells).
fn oracle(period: u64, burst: u32) -> impl FnMut(u64, u32) -> bool {
    let clock = FakeRelativeClock::default();
    let quota = Quota::with_period(Duration::from_nanos(period))
        .unwrap()
        .allow_burst(NonZeroU32::new(burst).unwrap());
    let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
    assert_eq!(clock.now().as_u64(), 0);
    move |pass, cells| {
        clock.advance(Duration::from_nanos(pass));
        // More cells than the burst are an error of their own there, and over the limit here.
        matches!(limiter.check_n(NonZeroU32::new(cells).unwrap()), Ok(Ok(())))
    }
}

/// Where a clock starts: anywhere within 2.28 years, often so that time in ticks wraps during the test.
fn start() -> impl Strategy<Value = u64> {
    let wrap = 1_u64 << 56;
    prop_oneof![
        Just(0),
        0..wrap,
        (0..10 * SECOND).prop_map(move |before| wrap - before)
    ]
}

/// Arrivals as (eighths of a period that pass, cells): trains, at the rate, around it, after silence.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let gap = prop_oneof![4 => Just(0_u64), 2 => Just(8), 4 => 0_u64..16, 1 => 0_u64..400];
    let cells = prop_oneof![8 => Just(1_u32), 2 => 1_u32..8, 1 => 1_u32..200];
    prop::collection::vec((gap, cells), 1..400)
}

proptest! {
    #[test]
    fn decides_cell_for_cell_as_governor(
        period in prop_oneof![
            100_u64..=SECOND,
            100_u64..10_000,
            prop::sample::select(vec![100_u64, 125, 1_000, 3_200, 100_000, 10_000_000, SECOND]),
        ],
        burst in prop_oneof![1_u32..4, 1_u32..200, 1_u32..100_000],
        base in start(),
        arrivals in arrivals(),
        jitter in prop::collection::vec(-2_i64..=2, 400),
    ) {
        let mut ours = Bucket::new(Rate::new(1, period, u64::from(burst)).unwrap(), base);
        let mut theirs = oracle(period, burst);
        for (step, ((eighths, cells), jitter)) in arrivals.into_iter().zip(jitter).enumerate() {
            let pass = (eighths * period / 8).saturating_add_signed(jitter);
            ours.advance(pass);
            prop_assert_eq!(ours.check(cells), theirs(pass, cells), "arrival {}", step);
        }
    }

    /// Rates that are no whole number of nanoseconds a cell: `governor` cuts the period off, so it is compared with
    /// two of them, one faster and one slower.
    #[test]
    fn stays_between_two_governors(
        per_second in 1_u64..=10_000_000,
        burst in 1_u32..100,
        base in start(),
        steps in prop::collection::vec(1_u64..=8, 1_000),
    ) {
        let floor = SECOND / per_second;
        let mut ours = Bucket::new(Rate::new(per_second, SECOND, u64::from(burst)).unwrap(), base);
        let (mut fast, mut slow) = (oracle(floor, burst), oracle(floor + 1, burst));
        let (mut admitted, mut most, mut least) = (0_i64, 0_i64, 0_i64);
        for eighths in steps {
            // More arrivals than the rate, so that the limiter and not the traffic decides.
            let pass = floor * eighths / 10;
            ours.advance(pass);
            admitted += i64::from(ours.check(1));
            most += i64::from(fast(pass, 1));
            least += i64::from(slow(pass, 1));
            prop_assert!(least - 1 <= admitted && admitted <= most + 1, "{} <= {} <= {}", least, admitted, most);
        }
    }

    /// The definition: what is admitted in any window costs at most the burst and the window. In whole numbers, by the
    /// configured rate and not by the rounded one.
    #[test]
    fn no_window_admits_more_than_burst_and_rate(
        units in 1_u64..100_000_000_000,
        per_ns in prop_oneof![Just(SECOND), 1_u64..100 * SECOND],
        burst_units in 1_u64..10_000_000,
        base in start(),
        arrivals in prop::collection::vec((0_u64..20_000, 1_u32..65_536), 1..60),
    ) {
        let Ok(rate) = Rate::new(units, per_ns, burst_units) else { return Ok(()) };
        let mut bucket = Bucket::new(rate, base);
        let mut taken: Vec<(u64, u128)> = Vec::new();
        let mut elapsed = 0;
        for (pass, size) in arrivals {
            elapsed += pass;
            bucket.advance(pass);
            if bucket.check(size) {
                taken.push((elapsed, u128::from(size)));
            }
        }
        for from in 0..taken.len() {
            let mut sum = 0;
            for to in from..taken.len() {
                sum += taken[to].1;
                let window = u128::from(taken[to].0 - taken[from].0) * 256 + u128::from(rate.burst);
                // sum * per_ns * 256 / units <= window
                prop_assert!(sum * u128::from(per_ns) * 256 <= window * u128::from(units));
            }
        }
    }

    #[test]
    fn a_cost_is_never_too_low_and_hardly_too_high(
        units in prop_oneof![1_u64..100, 1_u64..1_000_000_000_000, any::<u64>()],
        per_ns in prop_oneof![Just(SECOND), 1_u64..1_000 * SECOND, any::<u64>()],
        size in prop_oneof![Just(1_u32), 1_u32..=1 << 20, any::<u32>()],
    ) {
        let Ok(rate) = Rate::new(units, per_ns, 1) else { return Ok(()) };
        prop_assert!(rate.mantissa >> 31 == 1 && rate.shift < 64);
        prop_assert!(rate.burst <= MAX_BURST);
        prop_assert_eq!(Rate::from_words(rate.words()), rate);
        let cost = u128::from(rate.cost(size));
        let units = u128::from(units);
        let exact = u128::from(per_ns) * 256 * u128::from(size);
        if exact > units << 62 {
            prop_assert_eq!(cost, 1 << 62);
        } else if size > 0 {
            prop_assert!(cost * units >= exact, "too low");
            // At most 2^-31 of it and one tick too high.
            prop_assert!((cost - 1) * units <= exact + (exact >> 31) + units, "too high");
        }
    }

    /// What counts as legal is what the documentation says, for every number.
    #[test]
    fn rates_are_refused_for_the_documented_reasons(
        units in prop_oneof![Just(0_u64), 1_u64..1_000, any::<u64>()],
        per_ns in prop_oneof![Just(0_u64), 1_u64..1_000_000, any::<u64>()],
        burst in prop_oneof![Just(0_u64), 1_u64..1_000, any::<u64>()],
    ) {
        let result = Rate::new(units, per_ns, burst);
        let ticks = u128::from(per_ns) * 256;
        let cost = ticks.checked_div(u128::from(units)).unwrap_or(0);
        match result {
            Err(RateError::Zero) => prop_assert!(units == 0 || per_ns == 0),
            Err(RateError::NoBurst) => prop_assert_eq!(burst, 0),
            Err(RateError::TooFast) => prop_assert!(ticks < u128::from(units)),
            Err(RateError::TooSlow) => prop_assert!(cost >= (1 << 58) - (1 << 27)),
            Err(RateError::BurstTooLong) => {
                let longest = (u128::from(burst) + 63) * (cost + 1);
                prop_assert!(longest + (longest >> 31) >= u128::from(MAX_BURST), "{}", longest);
            }
            Ok(rate) => {
                prop_assert!(units != 0 && per_ns != 0 && burst != 0);
                prop_assert!((1..=1 << 58).contains(&cost));
                prop_assert!(u128::from(rate.burst) >= cost * u128::from(burst) && rate.burst <= MAX_BURST);
            }
        }
    }

    /// Whatever a bucket holds: at once no more than one burst, and soon enough a unit again.
    #[test]
    fn no_number_in_a_bucket_locks_it_or_opens_it(
        tat in any::<u64>(),
        base in any::<u64>(),
        period in 100_u64..SECOND,
        burst in 1_u32..100,
    ) {
        let rate = Rate::new(1, period, u64::from(burst)).unwrap();
        let mut bucket = Bucket { rate, tat, now: base };
        let at_once = (0..2 * burst).filter(|_| bucket.check(1)).count();
        prop_assert!(at_once <= burst as usize);
        let mut bucket = Bucket { rate, tat, now: base };
        bucket.advance((rate.burst + SKEW) >> 8);
        prop_assert!(bucket.check(1));
    }

    /// CPUs read their clocks in one order and reach the bucket in another.
    #[test]
    fn a_clock_that_lags_gets_no_burst_of_its_own(
        period in 100_u64..SECOND,
        burst in 1_u32..50,
        base in start(),
        lags in prop::collection::vec(0_u64..(SKEW >> 8), 1..50),
    ) {
        let rate = Rate::new(1, period, u64::from(burst)).unwrap();
        let mut bucket = Bucket::new(rate, base);
        for _ in 0..burst {
            prop_assert!(bucket.check(1));
        }
        for lag in lags {
            bucket.now = base.wrapping_sub(lag);
            prop_assert!(!bucket.check(1));
        }
    }
}

#[test]
fn the_textbook_example() {
    // Ten a second, three at once.
    let mut bucket = Bucket::new(Rate::new(10, SECOND, 3).unwrap(), 7 * SECOND);
    assert_eq!(
        [(); 5].map(|()| bucket.check(1)),
        [true, true, true, false, false]
    );
    bucket.advance(99_999_999);
    assert!(!bucket.check(1));
    bucket.advance(1);
    assert!(bucket.check(1));
    assert!(!bucket.check(1));
    bucket.advance(10 * SECOND);
    assert!(!bucket.check(4));
    assert!(bucket.check(3));
    assert!(!bucket.check(1));
}

#[test]
fn words_of_known_rates() {
    // 1/s: 256e9 ticks = 0xee6b2800 * 2^6.
    let rate = Rate::new(1, SECOND, 5).unwrap();
    assert_eq!(
        (rate.mantissa, rate.shift, rate.burst),
        (0xee6b_2800, 38, 5 * 256 * SECOND)
    );
    // 1,000,000/s: 256,000 ticks.
    let rate = Rate::new(1_000_000, SECOND, 10).unwrap();
    assert_eq!(
        (rate.cost(1), rate.cost(7), rate.burst),
        (256_000, 7 * 256_000, 2_560_000)
    );
    // 3/s: 85,333,333,333.3 ticks, rounded up to 32 bits.
    assert_eq!(Rate::new(3, SECOND, 1).unwrap().cost(1), 85_333_333_344);
    // 400 Gbit/s: 5.12 ticks a byte; the burst is made of frames of 64 bytes.
    let rate = Rate::new(50_000_000_000, SECOND, 640).unwrap();
    assert_eq!((rate.cost(64), rate.cost(1_500), rate.burst), (328, 7_681, 3_280));
    // 500 Mbit/s and below: the burst is made of bytes. The border is a unit of 4,095 ticks, rounded up.
    assert_eq!(Rate::new(62_500_000, SECOND, 100).unwrap().burst, 100 * 4_096);
    assert_eq!(Rate::new(62_515_262, SECOND, 100).unwrap().burst, 100 * 4_096);
    assert_eq!(Rate::new(62_515_263, SECOND, 100).unwrap().burst, 2 * 262_080);
    assert_eq!(Rate::new(62_499_999, SECOND, 100).unwrap().burst, 100 * 4_097);
}

#[test]
fn the_edges_of_what_can_be_measured() {
    assert_eq!(Rate::new(0, 1, 1), Err(RateError::Zero));
    assert_eq!(Rate::new(1, 0, 1), Err(RateError::Zero));
    assert_eq!(Rate::new(1, 1, 0), Err(RateError::NoBurst));
    assert_eq!(Rate::new(256, 1, 64).unwrap().cost(64), 64);
    assert_eq!(Rate::new(257, 1, 64), Err(RateError::TooFast));
    assert_eq!(Rate::new(u64::MAX, 1, 1), Err(RateError::TooFast));
    assert_eq!(Rate::new(1, 1 << 50, 4).unwrap().burst, MAX_BURST);
    assert_eq!(Rate::new(1, 1 << 50, 5), Err(RateError::BurstTooLong));
    assert_eq!(Rate::new(1, (1 << 50) + 1, 1), Err(RateError::TooSlow));
    assert_eq!(Rate::new(1, u64::MAX, 1), Err(RateError::TooSlow));
    assert_eq!(Rate::new(1, 1, u64::MAX), Err(RateError::BurstTooLong));
    assert_eq!(Rate::new(u64::MAX, u64::MAX, 1).unwrap().cost(1), 256);
    // A mantissa that rounds up to the next power of two.
    let rate = Rate::new((1 << 40) + 1, 1 << 41, 1).unwrap();
    assert_eq!((rate.mantissa, rate.shift, rate.cost(1)), (1 << 31, 22, 512));
    for error in [
        RateError::Zero,
        RateError::NoBurst,
        RateError::TooSlow,
        RateError::TooFast,
        RateError::BurstTooLong,
    ] {
        assert!(error.to_string().len() > 30, "{error}");
    }
}

#[test]
fn no_rate_admits_nothing() {
    let none = Rate::default();
    assert!(admit(0, SECOND, none.cost(1), none.burst).is_none());
    assert_eq!(none.cost(u32::MAX), 1);
    // A packet that costs more than any burst, on a rate made by hand.
    let slow = Rate {
        mantissa: u32::MAX,
        shift: 63,
        burst: MAX_BURST,
    };
    assert_eq!(slow.cost(u32::MAX), 1 << 62);
    assert!(admit(0, SECOND, slow.cost(1), slow.burst).is_none());
    assert!(admit(SECOND << 8, SECOND, slow.cost(u32::MAX), slow.burst).is_none());
    // The largest cost to the right of the point.
    let fast = Rate {
        mantissa: u32::MAX,
        shift: 0,
        burst: MAX_BURST,
    };
    assert_eq!(fast.cost(u32::MAX), 1 << 62);
}

#[test]
fn zero_stays_the_mark_of_a_fresh_bucket() {
    // now + cost wraps to exactly 0.
    let now = (1_u64 << 56) - 1;
    assert_eq!(admit(0, now, 256, 256), Some(1));
    assert_eq!(admit(1, now, 256, 256), None);
}

#[test]
fn smallest_bursts() {
    assert_eq!(min_burst(1, SECOND), 1);
    assert_eq!(min_burst(50_000, SECOND), 1);
    assert_eq!(min_burst(50_001, SECOND), 2);
    assert_eq!(min_burst(100_000, SECOND), 2);
    assert_eq!(min_burst(100_001, SECOND), 2);
    assert_eq!(min_burst(200_001, SECOND), 3);
    assert_eq!(min_burst(1_000_000, SECOND), 10);
    assert_eq!(min_burst(50_000_000_000, SECOND), 500_000);
    assert_eq!(min_burst(0, SECOND), 1);
    assert_eq!(min_burst(5, 0), 1);
    assert_eq!(min_burst(u64::MAX, 1), u64::MAX);
}

#[test]
fn four_tries_then_contended() {
    let rate = Rate::new(1, SECOND, 2).unwrap();
    for lost in 0..=TRIES {
        let cell = Shared::new(0);
        let left = std::cell::Cell::new(lost);
        let swap = |cell: &Shared<u64>, old: u64, new: u64| {
            assert_eq!(cell.load(), old);
            if left.get() > 0 {
                left.set(left.get() - 1);
                return false;
            }
            cell.store(new);
            true
        };
        let expected = if lost < TRIES {
            Taken::Admitted
        } else {
            Taken::Contended
        };
        assert_eq!(take(&cell, SECOND, rate.cost(1), rate.burst, swap), expected);
        assert_eq!(cell.load(), if lost < TRIES { (2 * SECOND) << 8 } else { 0 });
        assert_eq!(left.get(), 0);
    }
    // Nothing is swapped where nothing fits.
    let cell = Shared::new((3 * SECOND) << 8);
    assert_eq!(
        take(&cell, SECOND, rate.cost(1), rate.burst, |_, _, _| panic!(
            "charged"
        )),
        Taken::Over
    );
}

/// Another CPU spends the rest between load and swap: the second try sees it.
#[test]
fn a_lost_try_looks_again() {
    let rate = Rate::new(1, SECOND, 1).unwrap();
    let cell = Shared::new(0);
    let swap = |cell: &Shared<u64>, old: u64, _: u64| {
        assert_eq!(old, 0);
        cell.store((2 * SECOND) << 8);
        false
    };
    assert_eq!(take(&cell, SECOND, rate.cost(1), rate.burst, swap), Taken::Over);
}

/// Two threads on one bucket and one clock, which moves on by `step` ns with every packet: what they are admitted in all
/// is the rate, whatever the scheduler does. Returns (admitted, over, contended).
fn two_threads(rate: Rate, step: u64, packets: u64) -> [u64; 3] {
    let (clock, bucket) = (AtomicU64::new(SECOND), AtomicU64::new(0));
    let ready = Barrier::new(2);
    let run = || {
        let mut seen = [0_u64; 3];
        ready.wait();
        for _ in 0..packets {
            let now = clock.fetch_add(step, SeqCst);
            // The thread's view of the bucket: read once, and again by each swap that fails.
            let cell = Shared::new(bucket.load(SeqCst));
            let swap = |cell: &Shared<u64>, old: u64, new: u64| {
                bucket
                    .compare_exchange(old, new, SeqCst, SeqCst)
                    .map_err(|found| cell.store(found))
                    .is_ok()
            };
            seen[take(&cell, now, rate.cost(1), rate.burst, swap) as usize] += 1;
        }
        seen
    };
    let (a, b) = thread::scope(|scope| {
        let (a, b) = (scope.spawn(run), scope.spawn(run));
        (a.join().unwrap(), b.join().unwrap())
    });
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

#[test]
fn two_threads_share_one_rate() {
    for per_second in [100_u64, 10_000, 1_000_000] {
        let burst = min_burst(per_second, SECOND);
        let rate = Rate::new(per_second, SECOND, burst).unwrap();
        // Fifty packets for each one that is admitted. A thread that is put aside must not lag further than SKEW.
        let step = SECOND / per_second / 50;
        let packets = (SKEW >> 8).min(200_000 * 2 * step) / (2 * step);
        let [admitted, over, contended] = two_threads(rate, step, packets);
        assert_eq!(admitted + over + contended, 2 * packets);
        let expected = 2 * packets / 50;
        assert!(
            admitted <= expected + burst,
            "{per_second}/s: {admitted} of {expected}"
        );
        assert!(
            admitted >= expected * 98 / 100,
            "{per_second}/s: {admitted} of {expected}, {contended} contended"
        );
    }
}

#[test]
fn clocks_may_lie_apart_by_skew_and_no_tick_more() {
    let (now, burst) = (SECOND << 8, 256);
    assert_eq!(admit(now + burst + SKEW, SECOND, 1, burst), None);
    assert_eq!(admit(now + burst + SKEW + 1, SECOND, 1, burst), Some(now + 1));
}

/// What is given back can be drawn again, and no more than that: a bucket that is behind its clock is idle, not in credit.
#[test]
fn what_is_given_back_can_be_drawn_again() {
    let (cost, burst, now) = (100_u64 << 8, 1000_u64 << 8, 5_000_000);
    let cell = Shared::new(0_u64);
    let swap = |cell: &Shared<u64>, old, new| {
        let same = cell.load() == old;
        if same {
            cell.store(new);
        }
        same
    };
    let draw = || {
        (0..100)
            .take_while(|_| matches!(take(&cell, now, cost, burst, swap), Taken::Admitted))
            .count()
    };
    give_back(&cell, cost, swap);
    assert_eq!(cell.load(), 0, "nothing was charged");
    assert_eq!(draw(), 10);
    for back in [1, 3, 10] {
        (0..back).for_each(|_| give_back(&cell, cost, swap));
        assert_eq!(draw(), back);
    }
    (0..50).for_each(|_| give_back(&cell, cost, swap));
    assert_eq!(draw(), 10, "one burst, no more");
}

#[test]
fn what_cannot_be_given_back_for_others_is_left_to_drain() {
    let cell = Shared::new(1_000_u64);
    let tries = std::cell::Cell::new(0);
    give_back(&cell, 10, |_, _, _| {
        tries.set(tries.get() + 1);
        false
    });
    assert_eq!((tries.get(), cell.load()), (TRIES, 1_000));
}
