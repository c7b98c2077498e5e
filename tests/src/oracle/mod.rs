//! A plain first-match evaluator, and random policies and packets to ask it about.
//!
//! The evaluator reads the checked policy only, prefix by prefix and rule by rule. It shares no code with the tables,
//! the class look-up or the pipeline, and does not use the checked policy's own methods: where it and the compiled
//! policy differ, one of them is wrong.

mod evaluator;
mod packets;
mod policies;
mod shapes;

pub use evaluator::{Answer, Question, judge};
pub use packets::question;
pub use policies::policy;
pub use shapes::Shape;

/// Chooses one of a slice's elements.
///
/// # Panics
/// If there is none.
fn one_of<'a, T>(random: &mut fastrand::Rng, among: &'a [T]) -> &'a T {
    &among[random.usize(..among.len())]
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::{Answer, judge, policy, question};

    #[test]
    fn packets_meet_all_kinds_of_answers() {
        let mut random = Rng::with_seed(1);
        let (mut allowed, mut denied, mut defaults, mut realms) = (0, 0, 0, 0);
        for _ in 0..100 {
            let (text, own) = policy(&mut random);
            let (policy, _) = fw_policy::check(&text, "random.yaml").expect("a valid policy");
            for _ in 0..50 {
                match judge(&policy, &own, &question(&mut random, &policy, &own)) {
                    Answer::Allow(_) => allowed += 1,
                    Answer::Deny(_) => denied += 1,
                    Answer::Default => defaults += 1,
                    Answer::UnknownRealm => realms += 1,
                }
            }
        }
        println!("{allowed} {denied} {defaults} {realms}");
        assert!(allowed >= 1500 && denied >= 1000 && defaults >= 500 && realms >= 20);
    }
}
