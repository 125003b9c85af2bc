//! Prometheus' text format (version 0.0.4), as upstream's components write it.

use std::{collections::BTreeMap, fmt::Write as _};

/// The content type of a page.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a metric stays as it is, by upstream's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    Alpha,
    Beta,
    Stable,
    /// Not of upstream's components: of a library of theirs, or our own.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a metric is called and means.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    pub name: &'static str,
    pub stability: Stability,
    pub help: &'static str,
}

/// Something that has metrics to show.
pub trait Collect: Send + Sync {
    fn collect(&self, page: &mut Page);
}

/// A page of metrics, sorted by name.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<&'static str, String>,
    /// Families that were made, whether they have samples or not, by stability.
    registered: BTreeMap<&'static str, u64>,
}

impl Page {
    pub const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    /// Adds what each has to show.
    pub fn add(&mut self, shown: &[&dyn Collect]) {
        for collect in shown {
            collect.collect(self);
        }
    }

    /// Adds a family whose samples are made now; without any, it is left out. When its name is
    /// on the page already, the samples join those.
    pub fn family(
        &mut self,
        description: &Description,
        kind: Kind,
        labels: &[&'static str],
        fill: impl FnOnce(&mut Samples<'_>),
    ) {
        let level = match description.stability {
            Stability::Alpha => "ALPHA",
            Stability::Beta => "BETA",
            Stability::Stable => "STABLE",
            Stability::None => "",
        };
        *self.registered.entry(level).or_default() += 1;
        let mut text = String::new();
        fill(&mut Samples {
            name: description.name,
            labels,
            text: &mut text,
        });
        if text.is_empty() {
            return;
        }
        let family = self.families.entry(description.name).or_insert_with(|| {
            let stability = match description.stability {
                Stability::Alpha => "[ALPHA] ",
                Stability::Beta => "[BETA] ",
                Stability::Stable => "[STABLE] ",
                Stability::None => "",
            };
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let Description { name, help, .. } = description;
            format!("# HELP {name} {stability}{help}\n# TYPE {name} {kind}\n")
        });
        family.push_str(&text);
    }

    /// Shows how many metrics there are; none is hidden or turned off.
    pub fn show_registered(&mut self) {
        let beta = |name, help| Description {
            name,
            stability: Stability::Beta,
            help,
        };
        let registered = std::mem::take(&mut self.registered);
        let counts = beta(
            "registered_metrics_total",
            "Metrics that this page can show, by stability.",
        );
        let labels = ["deprecated_version", "stability_level"];
        self.family(&counts, Kind::Counter, &labels, |samples| {
            for (level, count) in registered.iter().filter(|(level, _)| !level.is_empty()) {
                samples.add(&["", level], *count as f64);
            }
        });
        for (name, help) in [
            (
                "hidden_metrics_total",
                "Metrics not shown because they are deprecated.",
            ),
            ("disabled_metrics_total", "Metrics that were turned off."),
        ] {
            self.family(&beta(name, help), Kind::Counter, &[], |samples| {
                samples.add(&[], 0.0);
            });
        }
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.single(name, help, Kind::Gauge, value);
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.single(name, help, Kind::Counter, value);
    }

    fn single(&mut self, name: &'static str, help: &'static str, kind: Kind, value: f64) {
        let description = Description {
            name,
            stability: Stability::None,
            help,
        };
        self.family(&description, kind, &[], |samples| samples.add(&[], value));
    }

    /// The page as text.
    pub fn render(&self) -> String {
        self.families.values().map(String::as_str).collect()
    }
}

/// Takes the samples of one family.
pub struct Samples<'a> {
    name: &'static str,
    labels: &'a [&'static str],
    text: &'a mut String,
}

impl Samples<'_> {
    pub fn add(&mut self, values: &[&str], value: f64) {
        self.line("", values, None, value);
        self.text.push('\n');
    }

    /// With the time at which it was measured, in milliseconds since the epoch.
    pub fn add_at(&mut self, values: &[&str], value: f64, milliseconds: i64) {
        self.line("", values, None, value);
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, " {milliseconds}");
    }

    pub(crate) fn bucket(&mut self, values: &[&str], bound: f64, count: u64) {
        self.line("_bucket", values, Some(bound), count as f64);
        self.text.push('\n');
    }

    pub(crate) fn totals(&mut self, values: &[&str], sum: f64, count: u64) {
        self.line("_sum", values, None, sum);
        self.text.push('\n');
        self.line("_count", values, None, count as f64);
        self.text.push('\n');
    }

    fn line(&mut self, suffix: &str, values: &[&str], bound: Option<f64>, value: f64) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut before = '{';
        for (label, value) in self.labels.iter().zip(values) {
            text.push(before);
            text.push_str(label);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            let _ = write!(text, "{before}le=\"{}\"", number(bound));
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        text.push(' ');
        text.push_str(&number(value));
    }
}

fn escape(value: &str, text: &mut String) {
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            char => text.push(char),
        }
    }
}

/// A number as Go's `%g` writes it: the shortest digits that read back as the same number, with an
/// exponent below 1e-4 and from 1e+06.
pub fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value.is_nan() {
        return "NaN".to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..=5 => format!("{value}"),
        exponent => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, Counters, Gauges, Histograms, MAX_SERIES, Series, Tally, exponential};

    #[test]
    fn numbers_read_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.005, "0.005"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (5e-7, "5e-07"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e9, "1e+09"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn pages_read_as_upstreams() {
        const BOUNDS: [f64; 2] = exponential(0.5, 2e6);
        static LATER: Histograms<1> =
            Histograms::with_buckets("b_seconds", Stability::Beta, "Time", ["of"], &BOUNDS);
        static FIRST: Counters<2> =
            Counters::new("a_total", Stability::Stable, "How many", ["x", "y"]);
        static ZERO: Gauges = Gauges::new("c", Stability::Alpha, "None yet", []);
        static NEVER: Gauges<1> = Gauges::new("d", Stability::Alpha, "Not shown", ["of"]);
        LATER.with(["w"]).observe(0.5);
        LATER.with(["w"]).observe(3.0);
        FIRST.with(["2", "a\"\\\n"]).add(2);
        FIRST.with(["1", ""]).inc();
        let mut page = Page::default();
        page.add(&[&ZERO, &LATER, &FIRST, &NEVER]);
        assert_eq!(
            page.render(),
            "# HELP a_total [STABLE] How many\n# TYPE a_total counter\n\
             a_total{x=\"1\",y=\"\"} 1\na_total{x=\"2\",y=\"a\\\"\\\\\\n\"} 2\n\
             # HELP b_seconds [BETA] Time\n# TYPE b_seconds histogram\n\
             b_seconds_bucket{of=\"w\",le=\"0.5\"} 1\n\
             b_seconds_bucket{of=\"w\",le=\"1e+06\"} 2\n\
             b_seconds_bucket{of=\"w\",le=\"+Inf\"} 2\n\
             b_seconds_sum{of=\"w\"} 3.5\nb_seconds_count{of=\"w\"} 2\n\
             # HELP c [ALPHA] None yet\n# TYPE c gauge\nc 0\n"
        );
    }

    #[test]
    fn series_are_bounded_and_can_be_forgotten() {
        static FAMILY: Counters<1> = Counters::new("a", Stability::None, "A", ["x"]);
        for index in 0..MAX_SERIES + 10 {
            FAMILY.with([&index.to_string()]).inc();
        }
        assert_eq!(FAMILY.with([""]).get(), 10);
        FAMILY.forget(|[value]| &**value != "7");
        let mut page = Page::default();
        page.add(&[&FAMILY]);
        assert_eq!(
            page.render(),
            "# HELP a A\n# TYPE a counter\na{x=\"7\"} 1\n"
        );
    }

    #[test]
    fn a_series_that_is_kept_is_that_of_its_family() {
        static FAMILY: Counters<1> = Counters::new("a", Stability::None, "A", ["x"]);
        static KEPT: Series<Counter, 1> = FAMILY.series(["1"]);
        static ALONE: Counters = Counters::new("b", Stability::None, "B", []);
        let shown = || {
            let mut page = Page::default();
            page.add(&[&FAMILY, &ALONE]);
            page.render()
        };
        let alone = "# HELP b B\n# TYPE b counter\nb 0\n";
        assert_eq!(shown(), alone, "nothing is shown before it is counted");
        KEPT.inc();
        FAMILY.with(["1"]).inc();
        let tally = Tally::new(KEPT.clone());
        let another = tally.another();
        tally.inc();
        another.inc();
        assert_eq!(KEPT.get(), 2, "a tally is added when it ends");
        drop((tally, another));
        assert_eq!(
            shown(),
            format!("# HELP a A\n# TYPE a counter\na{{x=\"1\"}} 4\n{alone}")
        );
        ALONE.with([]).inc();
        assert_eq!(ALONE.with([]).get(), 1);
    }
}
