//! Which Debian packages each level needs, and by which file one sees, where there is no dpkg, that they are there.

use super::Level;

/// A Debian package.
pub struct Package {
    /// Its name in Debian 12.
    pub name: &'static str,
    /// A program it brings, or an absolute path.
    pub brings: &'static str,
}

const fn package(name: &'static str, brings: &'static str) -> Package {
    Package { name, brings }
}

/// rustc and cargo with LLVM 22 and the sources of `core`; a C linker for the host's programs.
const BUILD: &[Package] = &[
    package("gcc", "cc"),
    package("libc6-dev", "/usr/include/stdlib.h"),
    package("rustc-web", "/usr/bin/rustc"),
    package("cargo-web", "/usr/bin/cargo"),
    package(
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/core/src/lib.rs",
    ),
];

/// The lab: namespaces, real clients and servers, and tools to look with.
const TEST: &[Package] = &[
    package("busybox-static", "busybox"),
    package("curl", "curl"),
    package("ethtool", "ethtool"),
    package("iperf3", "iperf3"),
    package("iproute2", "ip"),
    package("iputils-ping", "ping"),
    package("netcat-openbsd", "nc"),
    package("nftables", "nft"),
    package("nghttp2-server", "nghttpd"),
    package("openssh-client", "ssh"),
    package("openssh-server", "/usr/sbin/sshd"),
    package("openssl", "openssl"),
    package("socat", "socat"),
    package("tcpdump", "tcpdump"),
];

/// What runs other kernels. Apart from the others of its level: apt installs all that it is asked for or nothing, and
/// this one may be in conflict with what the machine has (see `emulator`).
pub const EMULATOR: Package = package("qemu-system-x86", "qemu-system-x86_64");

/// What the emulator's initramfs is packed with.
const VM: &[Package] = &[
    package("binutils", "strip"),
    package("busybox-static", "busybox"),
    package("cpio", "cpio"),
    package("kmod", "modprobe"),
    package("wireguard-tools", "wg"),
    package("xz-utils", "xz"),
];

/// clippy of the same version as the rustc for BPF.
const CHECK: &[Package] = &[package("rust-web-clippy", "/usr/bin/cargo-clippy")];

/// libFuzzer is written in C++.
const FUZZ: &[Package] = &[package("g++", "c++")];

/// What the bench measures beside dpufw and the lab has no use for.
const BENCH: &[Package] = &[
    package("iptables", "iptables-nft-restore"),
    package("xdp-tools", "xdp-filter"),
];

/// The packages of one level.
pub fn of(level: Level) -> &'static [Package] {
    match level {
        Level::Build => BUILD,
        Level::Test => TEST,
        Level::Vm => VM,
        Level::Check => CHECK,
        Level::Fuzz => FUZZ,
        Level::Bench => BENCH,
        Level::All => &[],
    }
}

/// The package with LLVM's shared library and its link name.
pub fn llvm(major: u32) -> String {
    format!("llvm-{major}-dev")
}
