//! What one pCPU traces with.

use partita_trace::histogram::HistogramBank;
use partita_trace::ring::Writer;

/// A pCPU's end of the trace.
pub struct Tracer {
    /// Its ring.
    pub writer: Writer<'static>,
    /// Its histograms.
    pub histograms: HistogramBank<'static>,
}

impl core::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tracer")
    }
}
