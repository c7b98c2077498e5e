//! Real traffic through a real agent, on kernels that have what the development machine's may lack: loss, duplicates and
//! reordering (netem), VLAN devices, bonds, `WireGuard`, GRE.
//!
//! Runs in a guest: `cargo xtask vm --scenario NAME [--kernel 6.12] [--full]`. Every scenario ends with the same question:
//! was a packet of legitimate traffic refused?

mod devices;
mod path_mtu;
mod site;
mod streams;
mod transfer;
