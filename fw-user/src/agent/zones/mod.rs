//! Dynamic zones: requests become a new generation of the tables, many at once if they come together.

mod change;
mod reload;

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fw_policy::Policy;
use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

use super::apply::InForce;
use super::core::{Agent, lock};
use super::faults::Part;
use super::members::Members;
use super::overlap;
use crate::control::{Session, ZoneChange, ZoneChanged, ZoneInfo, ZoneOutcome};
use crate::exit::Failure;

pub(super) use change::filled;
use change::{changed, dynamic_names, fill, list, no_zone, restore};

/// The wall clock may be set at any time: deadlines are looked at this often at least.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after a deadline that could not be kept.
const AGAIN: Duration = Duration::from_secs(5);

/// What the agent holds of dynamic zones.
pub struct DynamicZones {
    /// Members; none while they cannot be read.
    members: Mutex<Option<Members>>,
    /// Changes that wait for [`Agent::policy`].
    queue: Mutex<Vec<Pending>>,
    /// Members have changed, and so perhaps the next deadline.
    changed: Notify,
}

impl DynamicZones {
    /// With these members.
    #[must_use]
    pub fn new(members: Option<Members>) -> Self {
        Self {
            members: Mutex::new(members),
            queue: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

/// A request that waits for its turn.
struct Pending {
    changes: Vec<ZoneChange>,
    /// Whose session must not be cut; none if that was forced.
    session: Option<Session>,
    asked: Instant,
    answer: oneshot::Sender<Result<ZoneChanged, Failure>>,
}

/// What the changes of one request come to.
type Outcome = Result<Vec<ZoneOutcome>, Failure>;

impl Agent {
    /// Changes members of dynamic zones; answers when the change is in force. Requests that come while another one is put in
    /// force wait and are then put in force together.
    ///
    /// # Errors
    /// With exit code 2 for a zone or a number of members that cannot be; with 1 if it would lock the caller out.
    pub async fn change_zones(
        &self,
        changes: Vec<ZoneChange>,
        force: bool,
        session: Option<Session>,
    ) -> Result<ZoneChanged, Failure> {
        let (answer, answered) = oneshot::channel();
        lock(&self.zones.queue).push(Pending {
            changes,
            session: session.filter(|_| !force),
            asked: Instant::now(),
            answer,
        });
        {
            let mut in_force = self.policy.lock().await;
            // Whoever waited at the lock before may have done it already.
            let batch = mem::take(&mut *lock(&self.zones.queue));
            if !batch.is_empty() {
                tokio::task::block_in_place(|| self.settle(&mut in_force, batch));
            }
        }
        answered
            .await
            .map_err(|_| Failure::no("the agent broke off before the zones were changed; see its log"))?
    }

    /// Puts the batch in force and answers; where that is refused, each request by itself, so that one cannot spoil another.
    fn settle(&self, in_force: &mut Option<InForce>, batch: Vec<Pending>) {
        match self.enforce(in_force, &batch) {
            Ok(done) => answer(batch, done),
            Err(failure) if batch.len() == 1 => answer(batch, Done::refused(failure)),
            Err(_) => {
                for one in batch {
                    let one = vec![one];
                    let done = self.enforce(in_force, &one).unwrap_or_else(Done::refused);
                    answer(one, done);
                }
            }
        }
    }

    /// Members after the batch, and what is over by now taken out, in force.
    fn enforce(&self, in_force: &mut Option<InForce>, batch: &[Pending]) -> Result<Done, Failure> {
        let now = Timestamp::now();
        let mut members = self.known_members()?;
        let current = in_force.as_mut().ok_or_else(no_text)?;
        for (zone, prefix) in members.expire(now) {
            tracing::info!("{prefix} has reached its deadline in the zone {zone}");
        }
        let outcomes: Vec<Outcome> = batch
            .iter()
            .map(|pending| changed(&current.policy, &mut members, &pending.changes, now))
            .collect();
        let undo = fill(&mut current.policy, &members);
        let swapped = !undo.is_empty();
        if swapped {
            let sessions = batch.iter().filter_map(|pending| pending.session.as_ref());
            if let Err(failure) = self.swap_members(current, sessions) {
                restore(&mut current.policy, undo);
                return Err(failure);
            }
        }
        let notes = self.keep_members(members);
        Ok(Done {
            generation: current.generation,
            swapped,
            outcomes,
            notes,
        })
    }

    /// Compiles the policy with its new members and switches to it.
    fn swap_members<'a>(
        &self,
        current: &mut InForce,
        sessions: impl IntoIterator<Item = &'a Session>,
    ) -> Result<(), Failure> {
        overlap::check(&current.policy)?;
        self.readdress(current, sessions)
    }

    /// Puts the members that are kept into a policy's dynamic zones. Returns what is to be said of those that have none.
    ///
    /// # Errors
    /// With exit code 2 if they cannot be read and the policy needs them, or do not fit the policy's planes.
    pub(super) fn fill_zones(&self, policy: &mut Policy) -> Result<Vec<String>, Failure> {
        let members = match self.known_members() {
            Ok(members) => members,
            Err(_) if !policy.zones.iter().any(|zone| zone.dynamic) => return Ok(Vec::new()),
            Err(failure) => return Err(failure),
        };
        filled(policy, &members)
    }

    /// The members, read again if they could not be read before.
    fn known_members(&self) -> Result<Members, Failure> {
        let mut known = lock(&self.zones.members);
        if let Some(members) = known.as_ref() {
            return Ok(members.clone());
        }
        let members = read_members(&self.config.state_dir)?;
        self.faults.note(Part::Members, Ok(()));
        Ok(known.insert(members).clone())
    }

    /// Remembers members that are in force, on disk too. Returns what went wrong with that.
    fn keep_members(&self, members: Members) -> Vec<String> {
        let mut known = lock(&self.zones.members);
        let outcome = if known.as_ref() == Some(&members) && self.faults.of(Part::Members).is_none() {
            Ok(())
        } else {
            members.write(&self.config.state_dir)
        };
        *known = Some(members);
        let outcome = outcome.map_err(|error| {
            format!(
                "the members of dynamic zones are in force but cannot be kept for the next start: {error:#}"
            )
        });
        let notes = outcome.as_ref().err().cloned().into_iter().collect();
        self.faults.note(Part::Members, outcome);
        self.zones.changed.notify_one();
        notes
    }

    /// Dynamic zones of the policy in force and zones that members are kept for; one if it is named.
    ///
    /// # Errors
    /// With exit code 2 if there is no such zone.
    pub async fn list_zones(&self, name: Option<&str>) -> Result<Vec<ZoneInfo>, Failure> {
        let in_force = self.policy.lock().await;
        let policy = in_force.as_ref().map(|current| &current.policy);
        let members = self.known_members()?;
        let dynamic: Vec<&str> = policy.into_iter().flat_map(dynamic_names).collect();
        let mut names: Vec<&str> = dynamic.iter().copied().chain(members.zones()).collect();
        names.sort_unstable();
        names.dedup();
        if let Some(name) = name {
            if !names.contains(&name) {
                return Err(no_zone(policy, name));
            }
            names = vec![name];
        }
        let info = |zone: &str| ZoneInfo {
            zone: zone.to_owned(),
            in_force: dynamic.contains(&zone),
            members: list(&members, zone),
        };
        Ok(names.into_iter().map(info).collect())
    }

    /// Takes out what has reached its deadline.
    async fn expire_members(&self) -> Result<(), Failure> {
        let due = |members: &Members| {
            members
                .next_deadline()
                .is_some_and(|next| next <= Timestamp::now())
        };
        if !lock(&self.zones.members).as_ref().is_some_and(due) {
            return Ok(());
        }
        let mut in_force = self.policy.lock().await;
        tokio::task::block_in_place(|| self.enforce(&mut in_force, &[])).map(drop)
    }

    /// How long nothing is due.
    fn quiet(&self) -> Duration {
        let next = lock(&self.zones.members)
            .as_ref()
            .and_then(Members::next_deadline);
        let left = next.map(|next| next.duration_since(Timestamp::now()));
        left.map_or(LOOK, |left| {
            Duration::try_from(left).unwrap_or(Duration::ZERO).min(LOOK)
        })
    }
}

/// Keeps the deadlines of members until the agent stops.
pub(super) async fn run(agent: Arc<Agent>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(agent.quiet()) => {}
            () = agent.zones.changed.notified() => {}
        }
        if let Err(failure) = agent.expire_members().await {
            let fault = format!("members of dynamic zones stay beyond their deadline: {failure}");
            agent.faults.note(Part::Deadlines, Err(fault));
            tokio::time::sleep(AGAIN).await;
        } else {
            agent.faults.note(Part::Deadlines, Ok(()));
        }
    }
}

/// The failure of a change for which the policy's text must be known.
fn no_text() -> Failure {
    Failure::no("the agent does not know the text of the policy in force; apply a policy first")
}

/// A batch in force.
struct Done {
    generation: u32,
    swapped: bool,
    outcomes: Vec<Outcome>,
    notes: Vec<String>,
}

impl Done {
    /// A batch of one that was refused.
    fn refused(failure: Failure) -> Self {
        Self {
            generation: 0,
            swapped: false,
            outcomes: vec![Err(failure)],
            notes: Vec::new(),
        }
    }
}

fn answer(batch: Vec<Pending>, done: Done) {
    for (pending, outcome) in batch.into_iter().zip(done.outcomes) {
        let changed = outcome.map(|outcomes| ZoneChanged {
            generation: done.generation,
            swapped: done.swapped,
            outcomes,
            took_ms: pending.asked.elapsed().as_secs_f64() * 1e3,
            notes: done.notes.clone(),
        });
        // A client that has gone does not undo what it asked for.
        let _ = pending.answer.send(changed);
    }
}

/// Reads the members of all zones.
///
/// # Errors
/// With exit code 2: a policy that needs them must not be enforced without.
pub(super) fn read_members(state_dir: &std::path::Path) -> Result<Members, Failure> {
    Members::read(state_dir).map_err(|error| {
        Failure::input(format!(
            "the members of the policy's dynamic zones are not known: {error:#}. Restore that file, or remove it to begin \
             without members"
        ))
    })
}
