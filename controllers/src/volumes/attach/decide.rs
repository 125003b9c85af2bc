//! What to do with a volume that has to be attached to nodes, given where it is and where it is
//! wanted.
//!
//! Enter at [`decide`]. It detaches before it attaches, takes nothing from a node that still uses
//! it, and never has a volume that is for one node only at two.

use std::{collections::BTreeMap, time::Duration};

/// A node that does not let go of a volume is not waited for any longer, if it is not healthy.
pub(super) const LONGEST_UNMOUNT: Duration = Duration::from_mins(6);
/// How long a driver may take before it is told of.
pub(super) const LONGEST_ATTACH: Duration = Duration::from_mins(2);

/// How the driver stands with an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// It has not answered for so long.
    Silent(Duration),
    Attached,
    Failed(String),
    /// The attachment is on its way out.
    Detaching,
}

/// Whether the volume is mounted, as the node said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holder {
    pub in_use: bool,
    pub healthy: bool,
    pub out_of_service: bool,
}

/// The volume and one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// Pods on the node use the volume.
    pub wanted: bool,
    /// The node leaves it to this controller to attach volumes.
    pub managed: bool,
    pub attachment: Option<Driver>,
    /// The node's status lists the volume as attached.
    pub reported: bool,
    pub holder: Holder,
    /// For how long nobody has wanted it here.
    pub unwanted: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Attach,
    /// The driver has attached it: the node may mount it.
    Report,
    /// The driver cannot, or not in time.
    Fail(Failure),
    /// It is for one node only, and these have it.
    Refuse(Vec<String>),
    /// The node may not mount it any more; then it is detached. `checked`: not while the node,
    /// asked once more, uses it.
    Detach {
        checked: bool,
    },
    /// Look again when so much time has passed.
    Wait(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Told(String),
    TimedOut,
}

/// What to do about each node, in this order.
pub(super) fn decide(sites: &BTreeMap<String, Site>, shared: bool) -> Vec<(String, Action)> {
    let detached = sites
        .iter()
        .filter(|(_, site)| !site.wanted)
        .filter_map(|(node, site)| Some((node.clone(), let_go(site)?)));
    let mut actions: Vec<_> = detached.collect();
    let mut taken = false;
    for (node, site) in sites.iter().filter(|(_, site)| site.wanted) {
        let action = match &site.attachment {
            Some(driver) => follow(driver, site.reported),
            None if !site.managed => None,
            None if shared => Some(Action::Attach),
            None => match held_elsewhere(sites, node) {
                Elsewhere::Nowhere if taken => None,
                Elsewhere::Nowhere => {
                    taken = true;
                    Some(Action::Attach)
                }
                Elsewhere::Moving => None,
                Elsewhere::At(nodes) => Some(Action::Refuse(nodes)),
            },
        };
        actions.extend(action.map(|action| (node.clone(), action)));
    }
    actions
}

fn follow(driver: &Driver, reported: bool) -> Option<Action> {
    match driver {
        Driver::Attached => (!reported).then_some(Action::Report),
        Driver::Failed(why) => Some(Action::Fail(Failure::Told(why.clone()))),
        Driver::Silent(since) => Some(match LONGEST_ATTACH.checked_sub(*since) {
            Some(rest) if !rest.is_zero() => Action::Wait(rest),
            _ => Action::Fail(Failure::TimedOut),
        }),
        Driver::Detaching => None,
    }
}

fn let_go(site: &Site) -> Option<Action> {
    let gone = matches!(site.attachment, None | Some(Driver::Detaching));
    if gone && !site.reported {
        return None;
    }
    let Holder {
        in_use,
        healthy,
        out_of_service,
    } = site.holder;
    let expired = site.unwanted >= LONGEST_UNMOUNT;
    if in_use && !out_of_service && (healthy || !expired) {
        // A healthy node says when it is done.
        let rest = LONGEST_UNMOUNT.saturating_sub(site.unwanted);
        return (!healthy).then_some(Action::Wait(rest));
    }
    Some(Action::Detach {
        checked: !expired && !out_of_service,
    })
}

enum Elsewhere {
    Nowhere,
    /// On its way to or from another node: that is waited for.
    Moving,
    At(Vec<String>),
}

fn held_elsewhere(sites: &BTreeMap<String, Site>, node: &str) -> Elsewhere {
    let others = || sites.iter().filter(|(other, _)| *other != node);
    let has = |site: &Site| site.reported || site.attachment == Some(Driver::Attached);
    let nodes: Vec<String> = others()
        .filter(|(_, site)| has(site))
        .map(|(other, _)| other.clone())
        .collect();
    let goes = |site: &Site| !site.wanted && matches!(let_go(site), Some(Action::Detach { .. }));
    if others().any(|(_, site)| has(site) && !goes(site)) {
        return Elsewhere::At(nodes);
    }
    if others().any(|(_, site)| has(site) || site.attachment.is_some()) {
        return Elsewhere::Moving;
    }
    Elsewhere::Nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Site {
        Site {
            wanted: true,
            managed: true,
            holder: Holder {
                healthy: true,
                ..Holder::default()
            },
            ..Site::default()
        }
    }

    fn attached() -> Site {
        Site {
            attachment: Some(Driver::Attached),
            reported: true,
            ..wanted()
        }
    }

    fn unwanted(in_use: bool, healthy: bool, out_of_service: bool, minutes: u64) -> Site {
        Site {
            wanted: false,
            holder: Holder {
                in_use,
                healthy,
                out_of_service,
            },
            unwanted: Duration::from_mins(minutes),
            ..attached()
        }
    }

    fn at(sites: &[(&str, Site)], shared: bool) -> Vec<(String, Action)> {
        let sites = sites
            .iter()
            .map(|(name, site)| ((*name).to_owned(), site.clone()))
            .collect();
        decide(&sites, shared)
    }

    fn with(driver: Driver) -> Site {
        Site {
            attachment: Some(driver),
            ..wanted()
        }
    }

    #[test]
    fn a_volume_that_is_wanted_gets_attached_and_reported() {
        let second = Duration::from_secs(1);
        let cases = [
            (wanted(), Some(Action::Attach)),
            (
                Site {
                    managed: false,
                    ..wanted()
                },
                None,
            ),
            (
                with(Driver::Silent(second)),
                Some(Action::Wait(LONGEST_ATTACH - second)),
            ),
            (
                with(Driver::Silent(LONGEST_ATTACH)),
                Some(Action::Fail(Failure::TimedOut)),
            ),
            (
                with(Driver::Failed("no".to_owned())),
                Some(Action::Fail(Failure::Told("no".to_owned()))),
            ),
            (with(Driver::Attached), Some(Action::Report)),
            (attached(), None),
            (with(Driver::Detaching), None),
        ];
        for (site, action) in cases {
            let found = at(&[("a", site.clone())], false);
            let expected: Vec<_> = action.into_iter().map(|it| ("a".to_owned(), it)).collect();
            assert_eq!(found, expected, "{site:?}");
        }
    }

    #[test]
    fn a_volume_goes_from_its_node_when_the_node_is_done_or_lost() {
        let detach = |checked| Some(Action::Detach { checked });
        let wait = |minutes| Some(Action::Wait(Duration::from_mins(minutes)));
        // In use, healthy, out of service, for so many minutes.
        let cases = [
            (unwanted(false, true, false, 0), detach(true)),
            (unwanted(true, true, false, 0), None),
            (unwanted(true, true, false, 7), None),
            (unwanted(true, false, false, 1), wait(5)),
            (unwanted(true, false, false, 6), detach(false)),
            (unwanted(true, false, true, 0), detach(false)),
            (unwanted(false, false, false, 0), detach(true)),
            (
                Site {
                    attachment: Some(Driver::Detaching),
                    reported: false,
                    ..unwanted(false, true, false, 0)
                },
                None,
            ),
            (
                Site {
                    attachment: None,
                    ..unwanted(false, true, false, 0)
                },
                detach(true),
            ),
        ];
        for (site, action) in cases {
            let found = at(&[("a", site.clone())], false);
            let expected: Vec<_> = action.into_iter().map(|it| ("a".to_owned(), it)).collect();
            assert_eq!(found, expected, "{site:?}");
        }
    }

    #[test]
    fn a_volume_for_one_node_is_at_one_node() {
        let refused = ("b".to_owned(), Action::Refuse(vec!["a".to_owned()]));
        let leaving = Site {
            attachment: Some(Driver::Detaching),
            reported: false,
            ..unwanted(false, true, false, 0)
        };
        let attach = |node: &str| (node.to_owned(), Action::Attach);
        let in_use = unwanted(true, true, false, 0);
        let done = unwanted(false, true, false, 0);
        let let_go = ("a".to_owned(), Action::Detach { checked: true });
        let coming = with(Driver::Silent(Duration::ZERO));
        let come = ("a".to_owned(), Action::Wait(LONGEST_ATTACH));
        let cases = [
            (attached(), false, vec![refused.clone()]),
            (in_use, false, vec![refused]),
            (leaving, false, vec![]),
            (done, false, vec![let_go]),
            (coming, false, vec![come]),
            (wanted(), false, vec![attach("a")]),
            (wanted(), true, vec![attach("a"), attach("b")]),
            (attached(), true, vec![attach("b")]),
        ];
        for (first, shared, expected) in cases {
            let found = at(&[("a", first.clone()), ("b", wanted())], shared);
            assert_eq!(found, expected, "{first:?}");
        }
    }
}
