//! Reassembly bookkeeping: which bytes of a fragmented datagram have passed.
