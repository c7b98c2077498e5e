//! What both have stored: ageing, and comparison.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::ControlFlow;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap as BpfHash, Map, MapData};
use fw_common::abi::{
    Flow, Half, Key4, Key6, LiveFlow, LiveHalf, LiveSent, PRESSURE_SLOTS, Sent, Shared, Source, SourceKey,
    map_names,
};
use fw_common::fragment::{FragmentKey, LiveDatagram};
use fw_user::dataplane::{FlowKey, FlowTable, GRACE_NS};

use super::{Twin, pin_dir};

impl Twin {
    /// What the agent does each second: removes what is over.
    pub fn age(&mut self) -> Result<()> {
        let now = self.clock;
        self.plane.tables().age(now, |_, _, _| {})?;
        self.plane.tables().age_half_open(now, |_, _, _| {})?;
        self.plane.tables().fill_presence()?;
        let over = |flow: &Flow| {
            flow.expired(now.saturating_sub(GRACE_NS)) && now.saturating_sub(flow.last_seen()) > GRACE_NS
        };
        let world = &self.world;
        world.main4.borrow_mut().retain(|_, flow| !over(&copy(flow)));
        world.main6.borrow_mut().retain(|_, flow| !over(&copy(flow)));
        world
            .half4
            .borrow_mut()
            .retain(|_, flow| !copy(flow).expired(now));
        world
            .half6
            .borrow_mut()
            .retain(|_, flow| !copy(flow).expired(now));
        let used = [world.main4.borrow().len(), world.main6.borrow().len()];
        for (level, used) in world.levels.used.iter().zip(used) {
            level.store(used as u64);
        }
        Ok(())
    }

    /// What the agent does now and then: writes down how many flows sources and limits really have; here, none.
    pub fn forget_counts(&mut self) -> Result<()> {
        let tables = self.plane.tables();
        for (key, flows) in tables.source_flows()? {
            tables.mend_source(&key, flows, 0)?;
            if let Some(source) = self.world.sources.borrow().get(&key) {
                source.flows.store(0);
            }
        }
        let mut counts = Vec::new();
        tables.for_each_bucket(|key, value| {
            // Counts of flows are small, arrival times are not.
            if value != 0 && value < 1 << 32 {
                counts.push((*key, value));
            }
        })?;
        for (key, count) in counts {
            tables.mend_bucket(&key, count, 0)?;
            self.world.buckets.borrow_mut().remove(&key);
        }
        Ok(())
    }

    /// Compares the flow of the last packet, if that has a key, as both tables hold it: state, numbers, times, counts. Returns
    /// what it was about.
    pub fn compare_last_flow(&self) -> Result<Option<Compared>> {
        let Some(key) = self.last_key() else {
            return Ok(None);
        };
        let mut found = Compared::NoFlow;
        for table in [FlowTable::Main, FlowTable::HalfOpen] {
            let kernel = self.plane.tables().flow(table, &key)?;
            let known = self.model_flow(table, &key);
            ensure!(
                kernel.as_ref().map(words) == known.as_ref().map(words),
                "{table:?}, {key:?}: the kernel has {kernel:?}, the model {known:?}"
            );
            found = match (known, table) {
                (Some(_), FlowTable::Main) => Compared::Main,
                (Some(_), FlowTable::HalfOpen) if found == Compared::Main => Compared::Both,
                (Some(_), FlowTable::HalfOpen) => Compared::HalfOpen,
                (None, _) => found,
            };
        }
        Ok(Some(found))
    }

    /// The key under which the model has looked for the last packet's flow: for an ICMP error that of the packet it quotes.
    fn last_key(&self) -> Option<FlowKey> {
        let s = self.world.scratch.borrow();
        match s.meta.family {
            4 if s.key4 != Key4::default() => Some(FlowKey::V4(s.key4)),
            6 if s.key6 != Key6::default() => Some(FlowKey::V6(s.key6)),
            _ => None,
        }
    }

    fn model_flow(&self, table: FlowTable, key: &FlowKey) -> Option<Flow> {
        let world = &self.world;
        match (key, table) {
            (FlowKey::V4(key), FlowTable::Main) => world.main4.borrow().get(key).map(|flow| copy(flow)),
            (FlowKey::V4(key), FlowTable::HalfOpen) => world.half4.borrow().get(key).map(|flow| copy(flow)),
            (FlowKey::V6(key), FlowTable::Main) => world.main6.borrow().get(key).map(|flow| copy(flow)),
            (FlowKey::V6(key), FlowTable::HalfOpen) => world.half6.borrow().get(key).map(|flow| copy(flow)),
        }
    }

    /// Compares everything that both have stored.
    pub fn compare(&mut self) -> Result<Stored> {
        let world = &self.world;
        let mut stored = Stored::default();
        for (table, v4, v6) in [
            (FlowTable::Main, &world.main4, &world.main6),
            (FlowTable::HalfOpen, &world.half4, &world.half6),
        ] {
            let mut model: HashMap<FlowKey, Flow> = HashMap::new();
            model.extend(
                v4.borrow()
                    .iter()
                    .map(|(key, flow)| (FlowKey::V4(*key), copy(flow))),
            );
            model.extend(
                v6.borrow()
                    .iter()
                    .map(|(key, flow)| (FlowKey::V6(*key), copy(flow))),
            );
            stored.flows += self.compare_flows(table, model)?;
        }
        stored.sources = self.compare_sources()?;
        stored.buckets = self.compare_buckets()?;
        let levels = self.plane.tables().levels().used;
        let known = [0, 1].map(|family| self.world.levels.used[family].load());
        ensure!(
            levels == known,
            "the kernel counts {levels:?} flows, the model {known:?}"
        );
        self.compare_counters()?;
        stored.events = self.compare_events()?;
        Ok(stored)
    }

    fn compare_flows(&self, table: FlowTable, mut model: HashMap<FlowKey, Flow>) -> Result<usize> {
        let count = model.len();
        let mut different = None;
        self.plane.tables().for_each_flow(table, |key, kernel| {
            let known = model.remove(&key);
            if known.as_ref().map(words) != Some(words(kernel)) {
                different = Some(format!(
                    "{table:?}, {key:?}: the kernel has {kernel:?}, the model {known:?}"
                ));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if let Some(different) = different {
            bail!("{different}");
        }
        ensure!(
            model.is_empty(),
            "{table:?}: the kernel lacks {:?}",
            model.iter().next()
        );
        Ok(count)
    }

    fn compare_sources(&self) -> Result<usize> {
        let tables = self.plane.tables();
        let sources = self.world.sources.borrow();
        let kernel: HashMap<SourceKey, u32> = tables.source_flows()?;
        ensure!(
            kernel.len() == sources.len(),
            "the kernel knows {} sources, the model {}",
            kernel.len(),
            sources.len()
        );
        for (key, live) in sources.iter() {
            let source = tables
                .source(key)?
                .with_context(|| format!("the kernel lacks the source {key:?}"))?;
            let known = Source {
                window: live.window.load(),
                opened: live.opened.load(),
                flows: live.flows.load(),
                pad: live.pad.load(),
                proved_until: live.proved_until.load(),
                completed: live.completed.load(),
                denied: live.denied.load(),
                banned_until: live.banned_until.load(),
            };
            ensure!(
                source_words(&source) == source_words(&known),
                "{key:?}: the kernel has {source:?}, the model {known:?}"
            );
        }
        Ok(sources.len())
    }

    fn compare_buckets(&self) -> Result<usize> {
        let mut kernel = HashMap::new();
        self.plane.tables().for_each_bucket(|key, value| {
            kernel.insert(*key, value);
        })?;
        let model: HashMap<_, _> = self
            .world
            .buckets
            .borrow()
            .iter()
            .map(|(key, value)| (*key, value.load()))
            .collect();
        same("buckets of limits", &kernel, &model)
    }

    fn compare_counters(&self) -> Result<()> {
        let tables = self.plane.tables();
        let (plain, noted) = (tables.counters()?, tables.noted()?);
        let slots = plain
            .into_iter()
            .map(|(reason, count)| (u32::from(reason), count))
            .chain(
                noted
                    .into_iter()
                    .map(|(reason, count)| (u32::from(reason) + fw_common::abi::NOTED, count)),
            );
        let kernel: HashMap<u32, u64> = slots.map(|(slot, count)| (slot, count.packets)).collect();
        same("counters by reason", &kernel, &self.world.counters.borrow())?;
        let stats = tables.flow_stats()?.into_iter().enumerate();
        let kernel: HashMap<u32, u64> = stats
            .filter(|(_, count)| *count != 0)
            .map(|(stat, count)| (stat as u32, count))
            .collect();
        same("conntrack statistics", &kernel, &self.world.stats.borrow()).map(drop)
    }

    /// Compares what is too large to be compared after each sequence: datagrams in pieces and the buckets of destinations.
    /// Returns how many there are.
    pub fn compare_rest(&self) -> Result<(usize, usize)> {
        let map = Map::from_map_data(MapData::from_pin(pin_dir().join(map_names::FRAGMENTS))?)?;
        let kernel: BpfHash<MapData, [u32; 11], [u64; 10]> = map.try_into()?;
        let datagrams = self.world.datagrams.borrow();
        for (key, live) in datagrams.iter() {
            let known = datagram_words(live);
            let found = kernel
                .get(&key_words(key), 0)
                .with_context(|| format!("the kernel lacks {key:?}"))?;
            ensure!(
                found == known,
                "{key:?}: the kernel has {found:x?}, the model {known:x?}"
            );
        }
        let count = kernel.keys().count();
        ensure!(
            count == datagrams.len(),
            "the kernel has {count} datagrams, the model {}",
            datagrams.len()
        );
        let map = Map::from_map_data(MapData::from_pin(pin_dir().join(map_names::PRESSURE))?)?;
        let kernel: Array<MapData, u64> = map.try_into()?;
        let model = self.world.pressure.borrow();
        for slot in 0..PRESSURE_SLOTS {
            let (found, known) = (
                kernel.get(&slot, 0)?,
                model.get(&slot).map_or(0, |cell| cell.load()),
            );
            ensure!(
                found == known,
                "bucket {slot} of destinations: the kernel has {found}, the model {known}"
            );
        }
        Ok((count, model.len()))
    }

    /// Compares the events since the last time, in their order.
    pub fn compare_events(&mut self) -> Result<usize> {
        let model = self.world.events.take();
        for (number, event) in model.iter().enumerate() {
            let kernel = self
                .events
                .next_event()
                .with_context(|| format!("the kernel did not send event {number}: {event:?}"))?;
            let (kernel, known) = (format!("{kernel:?}"), format!("{event:?}"));
            ensure!(
                kernel == known,
                "event {number}: the kernel sent {kernel}, the model {known}"
            );
        }
        if let Some(event) = self.events.next_event() {
            bail!("the model did not send {event:?}");
        }
        Ok(model.len())
    }
}

/// Where a packet's flow was when the two were compared after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compared {
    /// Neither has an entry.
    NoFlow,
    /// In the main table.
    Main,
    /// In the half-open table.
    HalfOpen,
    /// In the half-open table, beside an entry of the main table that is over.
    Both,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    pub flows: usize,
    pub sources: usize,
    pub buckets: usize,
    pub events: usize,
}

impl std::ops::AddAssign for Stored {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.sources += other.sources;
        self.buckets += other.buckets;
        self.events += other.events;
    }
}

fn same<K: Eq + Hash + std::fmt::Debug>(
    what: &str,
    kernel: &HashMap<K, u64>,
    model: &HashMap<K, u64>,
) -> Result<usize> {
    for (key, value) in model {
        let found = kernel.get(key);
        ensure!(
            found == Some(value),
            "{what}, {key:?}: the kernel has {found:?}, the model {value}"
        );
    }
    for key in kernel.keys() {
        ensure!(model.contains_key(key), "{what}: the model lacks {key:?}");
    }
    Ok(model.len())
}

/// An entry as it is now.
pub fn copy(live: &LiveFlow) -> Flow {
    fn at<T: Copy>(word: &Shared<T>) -> T {
        word.load()
    }
    let half = |half: &LiveHalf| Half {
        packets: at(&half.packets),
        bytes: at(&half.bytes),
        last_seen: at(&half.last_seen),
    };
    let sent = |sent: &LiveSent| Sent {
        seq_end: at(&sent.seq_end),
        ack: at(&sent.ack),
        edge: at(&sent.edge),
        window: at(&sent.window),
    };
    Flow {
        half: [half(&live.half[0]), half(&live.half[1])],
        sent: [sent(&live.sent[0]), sent(&live.sent[1])],
        state: at(&live.state),
        generation: at(&live.generation),
        flags: at(&live.flags),
        policed: at(&live.policed),
        created: at(&live.created),
        rule: at(&live.rule),
        src_zone: at(&live.src_zone),
        dst_zone: at(&live.dst_zone),
        answer: at(&live.answer),
        carried_packets: at(&live.carried_packets),
        carried_bytes: at(&live.carried_bytes),
    }
}

fn words(flow: &Flow) -> [u64; 25] {
    let [a, b] = [0, 1].map(|side| {
        let (half, sent) = (&flow.half[side], &flow.sent[side]);
        [
            half.packets,
            half.bytes,
            half.last_seen,
            sent.seq_end.into(),
            sent.ack.into(),
            sent.edge.into(),
            sent.window.into(),
        ]
    });
    let mut words = [0; 25];
    words[..7].copy_from_slice(&a);
    words[7..14].copy_from_slice(&b);
    words[14..].copy_from_slice(&[
        flow.state.into(),
        flow.generation.into(),
        flow.flags.into(),
        flow.policed.into(),
        flow.created,
        flow.rule.into(),
        flow.src_zone.into(),
        flow.dst_zone.into(),
        flow.answer.into(),
        flow.carried_packets.into(),
        flow.carried_bytes.into(),
    ]);
    words
}

fn source_words(source: &Source) -> [u64; 8] {
    [
        source.window.into(),
        source.opened.into(),
        source.flows.into(),
        source.pad.into(),
        source.proved_until,
        source.completed,
        source.denied,
        source.banned_until,
    ]
}

/// A key as it lies in the map.
fn key_words(key: &FragmentKey) -> [u32; 11] {
    let mut words = [0; 11];
    words[..4].copy_from_slice(&key.src);
    words[4..8].copy_from_slice(&key.dst);
    (words[8], words[9]) = (key.id, key.realm);
    let [a, b] = key.pad.to_ne_bytes();
    words[10] = u32::from_ne_bytes([key.proto, key.family, a, b]);
    words
}

/// A datagram as it lies in the map.
fn datagram_words(live: &LiveDatagram) -> [u64; 10] {
    let mut half = [0; 18];
    for (word, range) in half.iter_mut().zip(&live.ranges) {
        *word = range.load();
    }
    let rest = [
        &live.lock,
        &live.progress,
        &live.end,
        &live.ports,
        &live.first,
        &live.generation,
        &live.rule,
        &live.up,
        &live.seq,
        &live.pad,
    ];
    for (word, cell) in half[8..].iter_mut().zip(rest) {
        *word = cell.load();
    }
    let mut words = [live.created.load(), 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (word, pair) in words[1..].iter_mut().zip(half.chunks_exact(2)) {
        let bytes = [pair[0].to_ne_bytes(), pair[1].to_ne_bytes()].concat();
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}
