//! TC filters of the clsact qdisc: how TC programs are attached before kernel 6.6.
//!
//! A filter is no file descriptor: it outlives the process, so it is found and replaced by its fixed place (priority and
//! handle) and its program's name. There is never more than one of ours.

use std::error::Error;
use std::io;

use aya::programs::links::Link;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle as Handle, TcMessage, TcOption};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::error::DataPlaneError;
use super::hook::Hook;
use super::links::Place;

/// The first priority: no other filter may pass a packet before ours has seen it.
const PRIORITY: u16 = 1;
/// Our filter's handle within that priority.
const HANDLE: u16 = 0xd9f0;

type BoxError = Box<dyn Error + Send + Sync>;

fn wrap(action: &'static str, port: &str, hook: Hook) -> impl FnOnce(BoxError) -> DataPlaneError {
    move |source| DataPlaneError::Clsact {
        action,
        port: port.to_owned(),
        hook,
        source,
    }
}

fn side(hook: Hook) -> Result<TcAttachType, BoxError> {
    hook.clsact_side()
        .ok_or_else(|| "XDP programs are no filters".into())
}

fn handle() -> TcHandle {
    TcHandle::new(0, HANDLE)
}

/// Sets the filter, over the one that a predecessor left. True if there was one.
pub(super) fn set(program: &mut SchedClassifier, port: &str, hook: Hook) -> Result<bool, DataPlaneError> {
    replace_or_create(program, port, hook).map_err(wrap("setting", port, hook))
}

fn replace_or_create(program: &mut SchedClassifier, port: &str, hook: Hook) -> Result<bool, BoxError> {
    let side = side(hook)?;
    // That the qdisc is there already is no error; if it could not be made, setting the filter says so.
    let _ = tc::qdisc_add_clsact(port);
    let old = SchedClassifierLink::attached(port, side, PRIORITY, handle(), None)?;
    let (link, replaced) = match program.attach_to_link(old) {
        Ok(link) => (link, true),
        Err(_) => (create(program, port, side)?, false),
    };
    // aya would remove the filter when the link is dropped; it is meant to stay.
    std::mem::forget(program.take_link(link)?);
    Ok(replaced)
}

fn create(
    program: &mut SchedClassifier,
    port: &str,
    side: TcAttachType,
) -> Result<aya::programs::tc::SchedClassifierLinkId, BoxError> {
    let options = NlOptions {
        priority: PRIORITY,
        handle: handle(),
        ..NlOptions::default()
    };
    Ok(program.attach_with_options(port, side, TcAttachOptions::Netlink(options))?)
}

/// Removes our filter, if there is one. True if there was.
pub(super) fn remove(place: Place) -> Result<bool, DataPlaneError> {
    let (ifindex, hook) = place;
    if find(place)?.is_none() {
        return Ok(false);
    }
    let Ok(port) = if_indextoname(ifindex) else {
        return Ok(false);
    };
    let port = port.to_string_lossy();
    let removed = side(hook).and_then(|side| {
        let link = SchedClassifierLink::attached(&port, side, PRIORITY, handle(), None)?;
        Ok(link.detach()?)
    });
    removed.map(|()| true).map_err(wrap("removing", &port, hook))
}

/// Id of the program in our filter; `None` if there is no such filter or no such interface.
pub(super) fn find((ifindex, hook): Place) -> Result<Option<u32>, DataPlaneError> {
    if if_indextoname(ifindex).is_err() {
        return Ok(None);
    }
    let found = dump(ifindex, hook);
    let filters =
        found.map_err(|error| wrap("reading", &format!("interface {ifindex}"), hook)(error.into()))?;
    Ok(filters.iter().find_map(|filter| program_of(filter, hook)))
}

/// The program id of a filter message, if it stands at our place and has our name.
fn program_of(filter: &TcMessage, hook: Hook) -> Option<u32> {
    let at_our_place = filter.header.info >> 16 == u32::from(PRIORITY)
        && u32::from(filter.header.handle) == u32::from(HANDLE);
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let named = |option: &TcOption| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name == hook.program());
    if !at_our_place || !options.iter().any(named) {
        return None;
    }
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}

/// All filters of one side of an interface's clsact qdisc.
fn dump(ifindex: u32, hook: Hook) -> io::Result<Vec<TcMessage>> {
    let minor = if hook == Hook::TcIn {
        Handle::MIN_INGRESS
    } else {
        Handle::MIN_EGRESS
    };
    let mut request = TcMessage::with_index(ifindex.cast_signed());
    request.header.parent = Handle {
        major: Handle::CLSACT.major,
        minor,
    };
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(RouteNetlinkMessage::GetTrafficFilter(request)),
    );
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    receive(&socket)
}

/// Collects the answers of a dump.
fn receive(socket: &Socket) -> io::Result<Vec<TcMessage>> {
    let invalid =
        |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let mut filters = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| invalid(&error))?;
            // Messages are padded to 4 bytes.
            let length = (message.header.length as usize)
                .next_multiple_of(4)
                .clamp(1, rest.len());
            rest = &rest[length..];
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(filters),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    filters.push(filter);
                }
                _ => {}
            }
        }
    }
}
