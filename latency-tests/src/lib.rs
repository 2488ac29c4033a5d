//! Latency suite.
