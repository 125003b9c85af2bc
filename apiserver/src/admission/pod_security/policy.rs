//! What a namespace's labels ask for: a level and a version for each of the three modes.
//!
//! Enter at [`Policy::of_labels`]. Upstream: `k8s.io/pod-security-admission/api`.

use std::{collections::BTreeMap, fmt};

use coracle_api::field::{ErrorList, Path};

pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
pub const ENFORCE_VERSION: &str = "pod-security.kubernetes.io/enforce-version";
pub const AUDIT: &str = "pod-security.kubernetes.io/audit";
pub const AUDIT_VERSION: &str = "pod-security.kubernetes.io/audit-version";
pub const WARN: &str = "pod-security.kubernetes.io/warn";
pub const WARN_VERSION: &str = "pod-security.kubernetes.io/warn-version";

/// How much pods may do; a later one allows less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which release's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Those of Kubernetes 1.x, by its x.
    Minor(u64),
    #[default]
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").ok_or(WRONG)?;
        let is_number = minor.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || (minor.len() > 1 && minor.starts_with('0')) {
            return Err(WRONG);
        }
        minor.parse().map(Version::Minor).map_err(|_| WRONG)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

/// What pods are measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What is asked of a namespace's pods in each mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

impl Policy {
    /// The policy and what is wrong with the labels. Where a label is wrong, the strictest is
    /// enforced and nothing is audited or warned of.
    pub fn of_labels(labels: Option<&BTreeMap<String, String>>) -> (Self, ErrorList) {
        let mut policy = Policy::default();
        let Some(labels) = labels else {
            return (policy, Vec::new());
        };
        let mut reader = Reader {
            labels,
            errors: Vec::new(),
        };
        let mut enforced = false;
        if let Some(level) = reader.read(ENFORCE, Level::parse) {
            enforced = level.is_ok();
            policy.enforce.level = level.unwrap_or(Level::Restricted);
        }
        if let Some(version) = reader.read(ENFORCE_VERSION, Version::parse) {
            policy.enforce.version = version.unwrap_or_default();
        }
        if let Some(level) = reader.read(AUDIT, Level::parse) {
            policy.audit.level = level.unwrap_or_default();
        }
        if let Some(version) = reader.read(AUDIT_VERSION, Version::parse) {
            policy.audit.version = version.unwrap_or_default();
        }
        let warn = reader.read(WARN, Level::parse);
        let warn_version = reader.read(WARN_VERSION, Version::parse);
        policy.warn.level = warn.unwrap_or(Ok(Level::default())).unwrap_or_default();
        policy.warn.version = warn_version
            .unwrap_or(Ok(Version::default()))
            .unwrap_or_default();
        // Who enforces wants to hear about workloads whose pods will be refused.
        if warn.is_none() && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if warn_version.is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, reader.errors)
    }
}

/// Reads labels and keeps what is wrong with them.
struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    errors: ErrorList,
}

impl Reader<'_> {
    fn read<T: Copy>(
        &mut self,
        label: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Option<Result<T, &'static str>> {
        let text = self.labels.get(label)?;
        let parsed = parse(text);
        if let Err(why) = parsed {
            let path = Path::new("metadata").child("labels").key(label);
            self.errors.push(path.invalid(text.as_str(), why));
        }
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: &[(&str, &str)]) -> (Policy, Vec<String>) {
        let labels = labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let (policy, errors) = Policy::of_labels(Some(&labels));
        (policy, errors.iter().map(ToString::to_string).collect())
    }

    fn standard(level: Level, version: Version) -> Standard {
        Standard { level, version }
    }

    #[test]
    fn what_is_enforced_is_warned_of_unless_labels_say_otherwise() {
        use Level::{Baseline, Privileged, Restricted};
        use Version::{Latest, Minor};
        type Labels = &'static [(&'static str, &'static str)];
        let cases: &[(Labels, [Standard; 3])] = &[
            (&[], [Standard::default(); 3]),
            (
                &[(ENFORCE, "baseline"), (ENFORCE_VERSION, "v1.25")],
                [
                    standard(Baseline, Minor(25)),
                    standard(Privileged, Latest),
                    standard(Baseline, Minor(25)),
                ],
            ),
            (
                &[(ENFORCE, "baseline"), (WARN_VERSION, "v1.3")],
                [
                    standard(Baseline, Latest),
                    standard(Privileged, Latest),
                    standard(Baseline, Minor(3)),
                ],
            ),
            (
                &[
                    (ENFORCE, "restricted"),
                    (WARN, "privileged"),
                    (AUDIT, "baseline"),
                ],
                [
                    standard(Restricted, Latest),
                    standard(Baseline, Latest),
                    standard(Privileged, Latest),
                ],
            ),
        ];
        for (labels, [enforce, audit, warn]) in cases {
            let wanted = Policy {
                enforce: *enforce,
                audit: *audit,
                warn: *warn,
            };
            assert_eq!(policy(labels), (wanted, Vec::new()), "{labels:?}");
        }
    }

    #[test]
    fn wrong_labels_enforce_the_strictest() {
        let (policy, errors) = policy(&[
            (ENFORCE, "strict"),
            (ENFORCE_VERSION, "1.25"),
            (AUDIT, "x"),
            (WARN, ""),
            (WARN_VERSION, "v1.01"),
        ]);
        assert_eq!(policy.enforce.to_string(), "restricted:latest");
        assert_eq!(policy.audit.to_string(), "privileged:latest");
        assert_eq!(policy.warn.to_string(), "privileged:latest");
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"1.25\": must be \"latest\" or \"v1.x\"",
                "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"\": must be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
            ]
        );
    }
}
