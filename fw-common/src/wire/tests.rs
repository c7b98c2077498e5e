//! Frames against the parser, rule by rule; the whole way of a packet is tested with the pipeline.

mod any;
mod edges;
mod extensions;
mod flags;
mod fragments;
mod frames;
mod headers;
mod plain;
mod quotes;
mod selectors;
mod tags;
