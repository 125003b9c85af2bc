//! What is counted, under upstream's names, and the page that shows it.
//!
//! Enter at [`Family`]: a metric of one name, with a series for each combination of label values
//! that was seen. A family is made at compile time, so it can be a static beside the code that
//! counts, as a log line is; counting takes no allocation once the series is there. Code that counts
//! often keeps a [`Series`], which is looked up once, or a [`Tally`]. A [`Page`] shows families in
//! Prometheus' text format, laid out as by upstream's components: the stability before the help,
//! bucket bounds as Go writes them, sorted by name.
//!
//! A family has at most [`MAX_SERIES`] series. What would be one more is counted under empty
//! label values, so that no client can make a server hold more.

mod family;
mod page;
mod process;
mod values;

pub use family::{Counters, Family, Gauges, Histograms, MAX_SERIES, Series};
pub use page::{Collect, Description, Kind, Page, Samples, Stability, number};
pub use process::{process, version};
pub use values::{Counter, Gauge, Held, Histogram, Tally, Value, exponential, linear};
