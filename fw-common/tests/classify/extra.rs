//! What only some sets have: source ports, directories of pages, vectors. Each is put behind the fixture's tables.

use fw_common::abi::{
    Action, BLOCK_ATOMS, ClassFlags, Decision, ExtraRecord, LINE_WORDS, Line, MAX_BLOCKS, PAGE_DIRECTORIES,
    PairEntry, ROW_BLOCKS, RuleFlags,
};
use fw_common::classify::{CORRUPT, Classified, NOTHING, Search, Service, allowed_protocols, decide, search};
use proptest::prelude::*;

use crate::example::{CLASSES, Fixture, fixture};
use crate::set::{POISON, pair_class};

const SERVICES: u32 = 41;
const SOURCES: u32 = 3;

/// Word of the header that holds the line of the extra record.
const EXTRA: usize = 15;

/// Puts a table behind the others, and a poisoned line behind it.
fn push(lines: &mut Vec<Line>, words: &[u32]) -> u32 {
    let at = lines.len() as u32;
    for chunk in words.chunks(LINE_WORDS) {
        let mut line = Line {
            w: [POISON; LINE_WORDS],
        };
        line.w[..chunk.len()].copy_from_slice(chunk);
        lines.push(line);
    }
    lines.push(Line {
        w: [POISON; LINE_WORDS],
    });
    at
}

fn halves(entries: impl Iterator<Item = u32>) -> Vec<u32> {
    let entries: Vec<u32> = entries.collect();
    entries
        .chunks(2)
        .map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 16)
        .collect()
}

/// The class of a source port: no interval is as long as a line.
fn source_of(port: u16) -> u32 {
    u32::from(port) / 5 % SOURCES
}

fn sources(lines: &mut Vec<Line>) -> u32 {
    let table = halves((0..=u16::MAX).map(source_of));
    push(lines, &table)
}

fn extra(lines: &mut Vec<Line>, record: ExtraRecord) {
    let at = push(lines, &record.to_line().w);
    lines[0].w[EXTRA] = at;
}

fn asked(lines: &[Line], classes: (u32, u32), service: Service) -> Classified {
    // What was found before does not matter.
    let mut out = Classified {
        decision: 99,
        pair: 98,
        search: Search {
            left: 97,
            rows: [96; 4],
            atom: 95,
            protos: 0,
        },
        src_class: classes.0,
        dst_class: classes.1,
        service: service.word(),
        ..Classified::default()
    };
    decide(lines, &mut out);
    out
}

#[test]
fn a_service_is_one_word() {
    let service = Service::of(6, 0xfffe, 0xfffd);
    assert_eq!((service.selector, service.source_port), (0xfffe, 0xfffd));
    assert_eq!(Service::from_word(service.word()), service);
    let echo = Service::of(1, 0x0800, 77);
    assert_eq!((echo.selector, echo.source_port), (0x0800, 0));
    let keys = Service::between(50, 0x1234, 0x5678);
    assert_eq!((keys.selector, keys.source_port), (0, 0));
    for proto in [6, 17, 132] {
        let ports = Service::between(proto, 1, 2);
        assert_eq!((ports.selector, ports.source_port), (2, 1));
    }
}

#[test]
fn source_ports_and_services_lead_to_a_class() {
    let Fixture { model, lines, .. } = fixture();
    let mut lines = lines.clone();
    let both = |service: u32, source: u32| (service * 5 + source * 7 + 1) % SERVICES;
    let cells = (0..SERVICES * SOURCES).map(|cell| both(cell / SOURCES, cell % SOURCES));
    let combine = push(&mut lines, &halves(cells));
    let record = ExtraRecord {
        sources: sources(&mut lines),
        source_classes: SOURCES,
        combine,
        ..ExtraRecord::default()
    };
    extra(&mut lines, record);
    for source_port in (0..=u16::MAX).step_by(7).chain([u16::MAX]) {
        for proto in [6, 17, 47, 50, 255] {
            let service = Service::of(proto, source_port.rotate_left(3), source_port);
            let out = asked(&lines, (3, 4), service);
            let class = both(
                model.service(proto, service.selector),
                source_of(service.source_port),
            );
            let decision = model.decision(pair_class(model.pair(3, 4)), class);
            assert_eq!((out.found, out.decision), (1, decision.0), "{service:?}");
        }
    }
    // A table that points outside is damage.
    for word in [0, 2] {
        let mut damaged = lines.clone();
        let at = damaged[0].w[EXTRA] as usize;
        damaged[at].w[word] = 1 << 30;
        assert_eq!(asked(&damaged, (3, 4), Service::of(6, 9, 9)).found, 0);
    }
    lines[0].w[EXTRA] = 1 << 30;
    assert_eq!(asked(&lines, (3, 4), Service::of(6, 9, 9)).found, 0);
}

#[test]
fn directories_lead_to_the_same_pages() {
    let Fixture { model, lines, header } = fixture();
    let pages = header.pages_per_pair;
    let mut with = lines.clone();
    let mut table = Vec::new();
    for pair in 0..model.pair_count {
        let word = |page: u32| {
            let index = (pair * pages + page) as usize;
            lines[header.decision_pages as usize + index / LINE_WORDS].w[index % LINE_WORDS]
        };
        let own: Vec<u32> = (0..pages).map(word).collect();
        table.push(push(&mut with, &own));
    }
    with[0].w[12] = push(&mut with, &table);
    with[0].w[13] = PAGE_DIRECTORIES | 1;
    for src in 0..CLASSES {
        for dst in 0..CLASSES {
            for selector in (0..=u16::MAX).step_by(1_021) {
                let service = Service::of(6, selector, 0);
                let (plain, other) = (
                    asked(lines, (src, dst), service),
                    asked(&with, (src, dst), service),
                );
                assert_eq!(plain, other);
            }
        }
    }
}

/// Rows of vectors as plain lists of bits, and a set that holds them.
struct Vectors {
    lines: Vec<Line>,
    src: Vec<Vec<bool>>,
    dst: Vec<Vec<bool>>,
    services: Vec<Vec<bool>>,
    sources: Vec<Vec<bool>>,
    protos: Vec<Vec<bool>>,
    decisions: Vec<Decision>,
}

/// Bits that look random: one in `one_of` is set.
fn bits(rows: usize, atoms: usize, one_of: u64, seed: u64) -> Vec<Vec<bool>> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.is_multiple_of(one_of)
    };
    (0..rows).map(|_| (0..atoms).map(|_| next()).collect()).collect()
}

fn push_rows(lines: &mut Vec<Line>, rows: &[Vec<bool>], stride: usize) -> u32 {
    let mut words = Vec::new();
    for row in rows {
        let mut own = vec![POISON; stride * LINE_WORDS];
        own[..2].copy_from_slice(&[0, 0]);
        for (block, bits) in row.chunks(BLOCK_ATOMS as usize).enumerate() {
            if !bits.contains(&true) {
                continue;
            }
            own[block / 32] |= 1 << (block % 32);
            let mut line = [0; LINE_WORDS];
            for (at, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                line[at / 32] |= 1 << (at % 32);
            }
            own[block + ROW_BLOCKS as usize] = push(lines, &line);
        }
        words.extend(own);
    }
    push(lines, &words)
}

impl Vectors {
    fn new(atoms: usize, one_of: u64, with_sources: bool) -> Self {
        let Fixture { model, .. } = fixture();
        let mut lines = fixture().lines.clone();
        let blocks = atoms.div_ceil(BLOCK_ATOMS as usize);
        let stride = (blocks + ROW_BLOCKS as usize).div_ceil(LINE_WORDS);
        let seed = atoms as u64 * 77 + one_of;
        let all = |rows, seed| bits(rows, atoms, one_of, seed);
        let rules = model.rules.len() as u32;
        let decisions: Vec<Decision> = (0..atoms as u32)
            .map(|atom| {
                let action = [Action::Allow, Action::Deny, Action::Reject][atom as usize % 3];
                Decision::new(action, atom % rules)
            })
            .collect();
        let (src, dst) = (all(7, seed + 1), all(5, seed + 2));
        let (services, mut sources_rows) =
            (all(SERVICES as usize, seed + 3), all(SOURCES as usize, seed + 4));
        let protos = all(4, seed + 5);
        let mut record = ExtraRecord {
            stride: stride as u32,
            src_rows: push_rows(&mut lines, &src, stride),
            dst_rows: push_rows(&mut lines, &dst, stride),
            service_rows: push_rows(&mut lines, &services, stride),
            proto_rows: push_rows(&mut lines, &protos, stride),
            default_inside: Decision::new(Action::Deny, 0).0,
            default_outside: Decision::new(Action::Reject, 0).0,
            ..ExtraRecord::default()
        };
        if with_sources {
            record.sources = sources(&mut lines);
            record.source_classes = SOURCES;
            record.source_rows = push_rows(&mut lines, &sources_rows, stride);
        } else {
            for row in &mut sources_rows {
                row.fill(true);
            }
        }
        let words: Vec<u32> = decisions.iter().map(|decision| decision.0).collect();
        record.atoms = push(&mut lines, &words);
        extra(&mut lines, record);
        Self {
            lines,
            src,
            dst,
            services,
            sources: sources_rows,
            protos,
            decisions,
        }
    }

    fn compare(&self, classes: (u32, u32), service: Service) {
        let model = &fixture().model;
        let (src, dst) = (
            model.classes[classes.0 as usize],
            model.classes[classes.1 as usize],
        );
        let out = asked(&self.lines, classes, service);
        let rows = [
            &self.src[src.src_row as usize],
            &self.dst[dst.dst_col as usize],
            &self.services[model.service(service.proto, service.selector) as usize],
            &self.sources[source_of(service.source_port) as usize],
        ];
        let first = (0..self.decisions.len()).find(|atom| rows.iter().all(|row| row[*atom]));
        let outside = src.flags & ClassFlags::OUTSIDE != 0;
        let default = Decision::new(if outside { Action::Reject } else { Action::Deny }, 0);
        let decision = first.map_or(default, |atom| self.decisions[atom]);
        assert_eq!(
            (out.found, out.decision, out.pair),
            (1, decision.0, 0),
            "{service:?} {classes:?}"
        );
        assert_eq!(out.rule_id, model.rules[decision.rule() as usize].id);
        assert_eq!((out.src, out.dst), (src, dst));
        self.compare_protocols(classes);
    }

    fn compare_protocols(&self, classes: (u32, u32)) {
        let model = &fixture().model;
        let src = &self.src[model.classes[classes.0 as usize].src_row as usize];
        let dst = &self.dst[model.classes[classes.1 as usize].dst_col as usize];
        let allowed = |row: &Vec<bool>| {
            let first = (0..row.len()).find(|atom| src[*atom] && dst[*atom] && row[*atom]);
            first.is_some_and(|atom| {
                let decision = self.decisions[atom];
                decision.allows() || model.rules[decision.rule() as usize].flags & RuleFlags::AUDIT != 0
            })
        };
        let bits = (0..4).filter(|proto| allowed(&self.protos[*proto as usize]));
        let right = bits.fold(0, |word, proto| word | 1_u32 << (PairEntry::PROTO_SHIFT + proto));
        let mut search = Search::default();
        for wanted in [
            PairEntry::ANY,
            PairEntry::proto_bit(6),
            PairEntry::proto_bit(1),
            0,
        ] {
            let found = allowed_protocols(&self.lines[..], classes, wanted, &mut search);
            assert_eq!(found, right & wanted, "{classes:?} {wanted:x}");
        }
    }
}

#[test]
fn an_entry_says_for_which_services_the_default_decides() {
    let Fixture { model, lines, .. } = fixture();
    let mut lines = lines.clone();
    let (src, dst) = (model.classes[3], model.classes[4]);
    let cell = (src.src_row * lines[0].w[10] + dst.dst_col) as usize;
    let (line, word) = (lines[0].w[9] as usize + cell / LINE_WORDS, cell % LINE_WORDS);
    let plain = lines[line].w[word];
    let services: Vec<Service> = (0..300_u16)
        .map(|at| Service::of([6, 17, 1][at as usize % 3], at * 211, 1))
        .collect();
    let mut seen = [0; 3];
    for (which, bit) in [PairEntry::UNNAMED, PairEntry::PAGES[0], PairEntry::PAGES[1]]
        .into_iter()
        .enumerate()
    {
        for (rejects, action) in [(0, Action::Deny), (PairEntry::REJECTS, Action::Reject)] {
            lines[line].w[word] = plain | bit | rejects;
            for service in &services {
                let class = model.service(service.proto, service.selector);
                let group = if class == 0 {
                    0
                } else {
                    1 + class as usize / LINE_WORDS % 2
                };
                let right = if group == which {
                    seen[which] += 1;
                    Decision::new(action, 0)
                } else {
                    model.decision(pair_class(plain), class)
                };
                let out = asked(&lines, (3, 4), *service);
                assert_eq!((out.found, out.decision), (1, right.0), "{service:?}");
                let id = if group == which {
                    0
                } else {
                    model.rules[right.rule() as usize].id
                };
                assert_eq!(out.rule_id, id);
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

/// Word of the header that holds the line of the class records (four to a line; the last of a record's words are its flags).
const RECORDS: usize = 8;

#[test]
fn where_no_atom_matches_the_default_depends_on_the_source() {
    let mut vectors = Vectors::new(1, 1 << 40, false);
    let (line, word) = (vectors.lines[0].w[RECORDS] as usize, 3);
    for (flag, action) in [(ClassFlags::OUTSIDE, Action::Reject), (0, Action::Deny)] {
        let flags = &mut vectors.lines[line].w[word];
        *flags = *flags & !ClassFlags::OUTSIDE | flag;
        let out = asked(&vectors.lines, (0, 1), Service::of(6, 1, 1));
        assert_eq!((out.found, out.decision), (1, Decision::new(action, 0).0));
    }
}

#[test]
fn the_first_bit_that_all_rows_have() {
    for (atoms, one_of, with_sources) in [
        (1, 1, true),
        (511, 3, false),
        (512, 5, true),
        (513, 2, true),
        (7_168, 9, true),
        (7_169, 30, false),
        (32_768, 20, true),
        (32_768, 60, false),
    ] {
        let vectors = Vectors::new(atoms, one_of, with_sources);
        for at in 0..300_u32 {
            let classes = (at % CLASSES, at / 3 % CLASSES);
            let service = Service::of(
                [6, 17, 1, 50][at as usize % 4],
                (at * 211) as u16,
                (at * 7_919) as u16,
            );
            vectors.compare(classes, service);
        }
    }
}

#[test]
fn every_bit_of_a_row_is_found() {
    let atoms = (MAX_BLOCKS * BLOCK_ATOMS) as usize;
    for only in (0..atoms).step_by(397).chain([atoms - 1]) {
        let mut lines = Vec::new();
        let row: Vec<bool> = (0..atoms).map(|atom| atom == only).collect();
        let all = vec![true; atoms];
        let rows = [&all, &row, &all].map(|row| push_rows(&mut lines, std::slice::from_ref(row), 5));
        let mut found = Search {
            rows: [rows[0], rows[1], rows[2], 0],
            ..Search::default()
        };
        // Line 0 is no row, but here it is the first block: the fourth row is not looked at.
        search(&lines[..], &mut found);
        assert_eq!(found.atom, only as u32);
        found.rows = [rows[1], rows[1], rows[0], rows[2]];
        search(&lines[..], &mut found);
        assert_eq!(found.atom, only as u32);
        // Without its line a block is damage; so is a row outside of the set.
        let block = only / BLOCK_ATOMS as usize + ROW_BLOCKS as usize;
        let mut damaged = lines.clone();
        damaged[rows[1] as usize + block / LINE_WORDS].w[block % LINE_WORDS] = 1 << 30;
        search(&damaged[..], &mut found);
        assert_eq!(found.atom, CORRUPT);
        found.rows[3] = 1 << 30;
        search(&lines[..], &mut found);
        assert_eq!(found.atom, CORRUPT);
    }
}

#[test]
fn rows_without_a_common_bit_find_nothing() {
    let mut lines = Vec::new();
    let odd: Vec<bool> = (0..2_000).map(|atom| atom % 2 == 1).collect();
    let even: Vec<bool> = odd.iter().map(|bit| !bit).collect();
    let rows = [&odd, &even].map(|row| push_rows(&mut lines, std::slice::from_ref(row), 1));
    let mut found = Search {
        rows: [rows[0], rows[1], rows[0], 0],
        ..Search::default()
    };
    search(&lines[..], &mut found);
    assert_eq!((found.atom, found.left), (NOTHING, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_vectors(atoms in 1..3_000_usize, one_of in 1..40_u64, with_sources: bool, packets in prop::collection::vec(any::<(u8, u16, u16, u8, u8)>(), 40)) {
        let vectors = Vectors::new(atoms, one_of, with_sources);
        for (proto, selector, port, src, dst) in packets {
            let classes = (u32::from(src) % CLASSES, u32::from(dst) % CLASSES);
            vectors.compare(classes, Service::of(proto, selector, port));
        }
    }
}
