//! Frames as XDP and TC hand them over.

use core::ffi::c_void;
use core::hint::cold_path;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use fw_common::abi::Mode;
use fw_common::pipeline::{Scratch, Tables};
use fw_common::wire::{self, ETHERNET_SKIP, Meta, NO_TAG, Packet, WINDOW_BYTES, Window, plain};

use crate::kernel::{Kernel, opaque, zero};
use crate::maps;

/// A frame at the XDP hook.
#[derive(Clone, Copy)]
pub struct Xdp(pub *mut xdp_md);
/// A packet at TC ingress.
#[derive(Clone, Copy)]
pub struct TcIn(pub *mut __sk_buff);
/// A packet at TC egress.
#[derive(Clone, Copy)]
pub struct TcOut(pub *mut __sk_buff);

/// `tc_index` of a packet that `dpufw_tc_in` has judged and redirected. Others on this machine can set it too, so it
/// counts only on a paired port and for what came in by the pair's other port.
const JUDGED: u32 = 0xdf3a;

/// Marks a packet as judged before it is redirected to the pair's other port, whose egress hook it will meet.
#[inline(always)]
pub fn mark_judged(skb: *mut __sk_buff) {
    // SAFETY: the verifier knows the context pointer and permits writes to tc_index at TC hooks.
    unsafe { (*skb).tc_index = JUDGED };
}

/// Takes away whatever mark a packet has that is not redirected.
#[inline(always)]
pub fn clear_mark(skb: *mut __sk_buff) {
    // SAFETY: the verifier knows the context pointer and permits writes to tc_index at TC hooks.
    unsafe { (*skb).tc_index = 0 };
}

/// True if the packet was marked and redirected by the pair's other port; takes the mark away. Uses the scratch memory's
/// port, which the way of a packet fills anew.
#[inline(always)]
pub fn take_judged(skb: *mut __sk_buff, s: &mut Scratch) -> bool {
    // SAFETY: context fields that the verifier permits to read.
    let (mark, came_by, ifindex) = unsafe { ((*skb).tc_index, (*skb).ingress_ifindex, (*skb).ifindex) };
    if mark != JUDGED || came_by == 0 || !Kernel.port(ifindex, &mut s.port) {
        return false;
    }
    clear_mark(skb);
    s.port.mode == Mode::Inline as u8 && s.port.peer_ifindex == came_by
}

/// Fills a window through one of the load-bytes helpers. The helper wants a length that the verifier can bound, and not
/// 0: the common long case has a constant, the rest is masked.
#[inline(always)]
fn load(
    len: u32,
    (offset, skip): (u32, u32),
    into: &mut Window,
    helper: impl Fn(u32, *mut c_void, u32) -> i64,
) -> u32 {
    let room = WINDOW_BYTES - skip;
    if offset >= len {
        return 0;
    }
    let left = len - offset;
    // SAFETY: `skip` is 0 or 2 at every call, so the pointer stays inside of the window.
    let to: *mut c_void = unsafe { into.words.as_mut_ptr().cast::<u8>().add(skip as usize) }.cast();
    if left >= room {
        return if helper(offset, to, room) == 0 {
            WINDOW_BYTES
        } else {
            0
        };
    }
    // `offset < len`, so at least 1 is left; the mask tells the verifier of 6.1 so, which forgets it after a compare with 0.
    let bytes = (core::hint::black_box(left - 1) & (WINDOW_BYTES - 1)) + 1;
    if helper(offset, to, bytes) != 0 {
        return 0;
    }
    skip + bytes
}

/// Words behind an Ethernet header's first two bytes, and bytes, of the shortest frame that is read in place: TCP over IPv4.
const SHORT_WORDS: usize = 13;
const SHORT_BYTES: u32 = 2 + 4 * SHORT_WORDS as u32;

/// A frame whose first buffer is shorter lies in it as a whole: drivers fill a buffer before they take the next one, and no
/// buffer is shorter than this. Were it otherwise, what lies behind would be padding (the IP packet ends in the first buffer, or
/// the frame is not a plain one), and its bytes would not be counted.
const ONE_BUFFER: u32 = 256;

/// The first buffer of a frame: where it begins and ends.
#[derive(Clone, Copy)]
struct Head(usize, usize);

impl Head {
    #[inline(always)]
    fn len(self) -> u32 {
        self.1.wrapping_sub(self.0) as u32
    }

    /// Compared in the form that the verifier understands.
    #[inline(always)]
    fn holds(self, bytes: u32) -> bool {
        self.0 + bytes as usize <= self.1
    }

    /// Copies word `word`, which the caller has checked to be there. An IP header is aligned in the window, not in the frame.
    #[inline(always)]
    fn word(self, word: usize, into: &mut Window) {
        let from = (self.0 + 2 + 4 * word) as *const u32;
        // SAFETY: `holds` was asked for these bytes, as the verifier demands. Volatile, because LLVM makes calls of memmove of
        // plain copies, byte by byte; all targets of BPF's JITs that are supported here load words at any even address.
        into.words[word + 1] = unsafe { from.read_volatile() };
    }

    /// Copies words `word` and the next one, which is an even one of the window's, as one.
    #[inline(always)]
    fn pair(self, word: usize, into: &mut Window) {
        let from = (self.0 + 2 + 4 * word) as *const u64;
        // SAFETY: as in `word`; word + 2 is even, so the window has room for both, aligned.
        unsafe {
            let both = from.read_volatile();
            into.words
                .as_mut_ptr()
                .add(word + 1)
                .cast::<u64>()
                .write_volatile(both);
        }
    }

    /// Copies words `0 .. END`, an odd number, with the two bytes in front of them.
    #[inline(always)]
    fn copy<const END: usize>(self, into: &mut Window) {
        // SAFETY: as in `word`; the window's first word has room for them.
        unsafe {
            let first = (self.0 as *const u16).read_volatile();
            into.words.as_mut_ptr().cast::<u16>().add(1).write_volatile(first);
        }
        self.word(0, into);
        let mut word = 1;
        while word < END {
            self.pair(word, into);
            word += 2;
        }
    }

    /// Copies the words behind the short frame's, as many as are there, and returns the end of the data in the window.
    #[inline(always)]
    fn copy_rest(self, into: &mut Window) -> u32 {
        let mut word = SHORT_WORDS;
        while word < 31 {
            if !self.holds(6 + 4 * word as u32) {
                break;
            }
            self.word(word, into);
            word += 1;
        }
        4 + 4 * word as u32
    }
}

impl plain::Head for Head {
    #[inline(always)]
    fn holds(self, bytes: u32) -> bool {
        Self::holds(self, bytes)
    }

    #[inline(always)]
    fn be32(self, word: u32) -> u32 {
        let at = (self.0 + (4 * word - ETHERNET_SKIP) as usize) as *const u32;
        // SAFETY: `holds` was asked for these bytes, as the verifier demands.
        u32::from_be(unsafe { at.read_volatile() })
    }
}

impl Packet for Xdp {
    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: the helper takes the context only; all fragments are counted.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn short_len(self) -> u32 {
        // SAFETY: context fields that the verifier knows as pointers to packet data and its end.
        let head = unsafe { Head((*self.0).data as usize, (*self.0).data_end as usize) };
        if head.len() < ONE_BUFFER {
            return head.len();
        }
        self.len()
    }

    #[inline(always)]
    fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
        load(self.len(), (offset, skip), into, |offset, to, bytes| {
            // SAFETY: `to` has room for `bytes` bytes; the verifier checks it against the scratch map's value.
            unsafe { bpf_xdp_load_bytes(self.0, offset, to, bytes) }
        })
    }

    /// Reads in place what lies in the frame's first buffer: a helper's call costs more than the rest of parsing.
    #[inline(always)]
    fn load_head(self, len: u32, into: &mut Window) -> u32 {
        // SAFETY: context fields that the verifier knows as pointers to packet data and its end.
        let head = unsafe { Head((*self.0).data as usize, (*self.0).data_end as usize) };
        if head.holds(WINDOW_BYTES - ETHERNET_SKIP) {
            head.copy::<31>(into);
            return WINDOW_BYTES;
        }
        if head.len() != len || !head.holds(SHORT_BYTES) {
            return self.load(0, ETHERNET_SKIP, into);
        }
        head.copy::<SHORT_WORDS>(into);
        head.copy_rest(into)
    }

    #[inline(always)]
    fn plain(self, port_realm: u8, m: &mut Meta) -> bool {
        // SAFETY: context fields that the verifier knows as pointers to packet data and its end.
        let head = unsafe { Head((*self.0).data as usize, (*self.0).data_end as usize) };
        plain::parse(head, port_realm, zero(), m)
    }

    /// A global function, which the verifier follows once: what is parsed in place is the common case, and everything behind
    /// would have to be followed anew for each way through the parser.
    #[inline(always)]
    fn parse_whole(self, _link: u8, _port_realm: u8, m: &mut Meta) {
        // The metadata lies in the scratch memory, which the function finds by itself, as it does the port: see `stage`. If it
        // did not, nothing was parsed: a drop without reason.
        m.status = 0;
        let m = opaque(m);
        dpufw_parse(self.0);
        opaque(m);
    }

    #[inline(always)]
    fn opaque<T>(self, x: &mut T) -> &mut T {
        opaque(x)
    }

    #[inline(always)]
    fn zero(self) -> u32 {
        zero()
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: a context field that the verifier permits to read.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn tag(self) -> u32 {
        NO_TAG
    }

    #[inline(always)]
    fn segments(self) -> u32 {
        1
    }

    #[inline(always)]
    fn wire_bytes(self, len: u32) -> u32 {
        len
    }

    #[inline(always)]
    fn egress(self) -> bool {
        false
    }

    #[inline(always)]
    fn came_by(self) -> u32 {
        0
    }
}

/// Segments of a super-packet. That of a guest (tap, virtio) has only their size until somebody cuts it (`SKB_GSO_DODGY`,
/// `include/linux/skbuff.h`); then what lies behind the shortest headers is divided, which may make one too many.
#[inline(never)]
fn super_packet(skb: *mut __sk_buff) -> u32 {
    /// Ethernet, IPv4 and UDP, or IPv4 and TCP where there is no Ethernet.
    const HEADERS: u32 = 40;
    // SAFETY: context fields that the verifier permits to read.
    let (segments, size, len) = unsafe { ((*skb).gso_segs, (*skb).gso_size, (*skb).len) };
    if segments != 0 || size == 0 {
        return segments.max(1);
    }
    len.saturating_sub(HEADERS).div_ceil(size).max(1)
}

/// Parses a frame that is not a plain one, by the port in the scratch memory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dpufw_parse(ctx: *mut xdp_md) -> u32 {
    maps::scratch().map_or(0, |s| {
        wire::parse_whole(Xdp(ctx), s.port.link, s.port.realm, &mut s.meta);
        s.meta.status
    })
}

/// `ETH_P_8021AD` as `__sk_buff::vlan_proto` shows it makes no difference here: one tag is one tag.
macro_rules! tc_packet {
    ($name:ident, egress: $egress:literal, |$skb:ident| $came_by:expr) => {
        impl Packet for $name {
            #[inline(always)]
            fn len(self) -> u32 {
                // SAFETY: a context field that the verifier permits to read.
                unsafe { (*self.0).len }
            }

            #[inline(always)]
            fn load(self, offset: u32, skip: u32, into: &mut Window) -> u32 {
                load(self.len(), (offset, skip), into, |offset, to, bytes| {
                    // SAFETY: `to` has room for `bytes` bytes; the verifier checks it against the scratch map's value.
                    unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, bytes) }
                })
            }

            #[inline(always)]
            fn opaque<T>(self, x: &mut T) -> &mut T {
                opaque(x)
            }

            #[inline(always)]
            fn zero(self) -> u32 {
                zero()
            }

            #[inline(always)]
            fn ifindex(self) -> u32 {
                // SAFETY: a context field that the verifier permits to read.
                unsafe { (*self.0).ifindex }
            }

            #[inline(always)]
            fn tag(self) -> u32 {
                // SAFETY: context fields that the verifier permits to read.
                unsafe {
                    if (*self.0).vlan_present != 0 {
                        (*self.0).vlan_tci
                    } else {
                        NO_TAG
                    }
                }
            }

            #[inline(always)]
            fn segments(self) -> u32 {
                // SAFETY: a context field that the verifier permits to read.
                if unsafe { (*self.0).gso_size } == 0 {
                    1
                } else {
                    cold_path();
                    super_packet(self.0)
                }
            }

            #[inline(always)]
            fn wire_bytes(self, len: u32) -> u32 {
                // SAFETY: a context field that the verifier permits to read.
                let wire = unsafe { (*self.0).wire_len };
                if wire > len { wire } else { len }
            }

            #[inline(always)]
            fn egress(self) -> bool {
                $egress
            }

            #[inline(always)]
            fn came_by(self) -> u32 {
                let $skb = self.0;
                $came_by
            }
        }
    };
}

tc_packet!(TcIn, egress: false, |_skb| 0);
tc_packet!(TcOut, egress: true, |skb| {
    // SAFETY: a context field that the verifier permits to read.
    unsafe { (*skb).ingress_ifindex }
});
