//! Compares the nodes' views of their cluster: who is foreign, who is stale, who is in which component.
//!
//! The state UUID does not reveal a partition, for both halves keep it. The configuration number grows with each
//! change of membership, so among overlapping memberships the highest number is the present and lower ones are the
//! past. Two Primary memberships without a common node are a split brain.

use std::collections::BTreeSet;

use super::Signals;

/// A Primary node's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) uuid: Option<String>,
    pub(super) conf_id: Option<u64>,
    /// Empty where the node does not say (`AUTO`, or arbitrators only).
    pub(super) members: BTreeSet<String>,
    pub(super) size: Option<u32>,
}

impl View {
    /// The view in a sample, if it is a Primary's.
    pub(super) fn of(signals: &Signals) -> Option<Self> {
        if signals.primary != Some(true) {
            return None;
        }
        let names = |member: &&String| !member.is_empty() && !member.eq_ignore_ascii_case("AUTO");
        let unset = |uuid: &str| uuid.is_empty() || uuid.bytes().all(|byte| matches!(byte, b'0' | b'-'));
        Some(Self {
            uuid: signals.state_uuid.clone().filter(|uuid| !unset(uuid)),
            conf_id: signals.conf_id.filter(|id| *id != u64::MAX),
            members: signals.members.iter().filter(names).cloned().collect(),
            size: signals.cluster_size,
        })
    }

    /// What changes with each change of membership.
    pub(super) fn key(&self) -> (Option<&str>, Option<u64>) {
        (self.uuid.as_deref(), self.conf_id)
    }

    /// Whether the other one is what this one has become.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.conf_id.zip(other.conf_id).is_some_and(|(mine, other)| mine < other) && self.overlaps(other)
    }

    /// Whether the two may speak of one component, now or in the past.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.members.is_empty() || other.members.is_empty() || !self.members.is_disjoint(&other.members)
    }

    /// Whether the two are the same component at the same time.
    fn agrees(&self, other: &Self) -> bool {
        self.conf_id == other.conf_id && self.size == other.size && self.overlaps(other)
    }
}

/// What the comparison says, each list by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// The cluster's UUID.
    pub(super) home: Option<String>,
    pub(super) foreign: Vec<bool>,
    pub(super) stale: Vec<bool>,
    /// The component of each Primary node of the cluster, numbered from 0.
    pub(super) component: Vec<Option<usize>>,
    /// How many components there are.
    pub(super) components: usize,
    /// All Primary nodes of the cluster have the same view.
    pub(super) agreed: bool,
}

/// Compares the views of all nodes, `None` for a node that is not Primary or not known. `home` is the UUID that was
/// the cluster's so far: it stays so while any node shows it; then the majority decides, then the first node.
pub(super) fn compare(views: &[Option<&View>], home: Option<&str>) -> Comparison {
    let home = home_uuid(views, home);
    let is_foreign = |view: &View| view.uuid.is_some() && home.is_some() && view.uuid != home;
    let foreign: Vec<bool> = views.iter().map(|view| view.is_some_and(is_foreign)).collect();
    let ours: Vec<Option<&View>> =
        views.iter().zip(&foreign).map(|(view, foreign)| view.filter(|_| !foreign)).collect();
    let newer = |mine: &View| ours.iter().flatten().any(|other| mine.is_before(other));
    let stale: Vec<bool> = ours.iter().map(|view| view.is_some_and(newer)).collect();
    let (component, components) = components(&ours, &stale);
    let present: Vec<&View> = ours.iter().copied().flatten().collect();
    let agreed = present.windows(2).all(|pair| pair[0].agrees(pair[1]));
    Comparison { home, foreign, stale, component, components, agreed }
}

fn home_uuid(views: &[Option<&View>], home: Option<&str>) -> Option<String> {
    let shown: Vec<&str> = views.iter().flatten().filter_map(|view| view.uuid.as_deref()).collect();
    if let Some(home) = home
        && (shown.contains(&home) || shown.is_empty())
    {
        return Some(home.to_owned());
    }
    let votes = |uuid: &str| shown.iter().filter(|other| **other == uuid).count();
    // The first of the most frequent: `max_by_key` would return the last.
    shown.iter().rev().max_by_key(|uuid| votes(uuid)).map(|uuid| (*uuid).to_owned())
}

/// Numbers the groups of nodes whose present views overlap; stale nodes belong to none.
fn components(ours: &[Option<&View>], stale: &[bool]) -> (Vec<Option<usize>>, usize) {
    let mut component: Vec<Option<usize>> = vec![None; ours.len()];
    let mut count = 0;
    let present = |node: usize| ours[node].filter(|_| !stale[node]);
    for start in 0..ours.len() {
        if present(start).is_none() || component[start].is_some() {
            continue;
        }
        let mut reached = vec![start];
        while let Some(node) = reached.pop() {
            component[node] = Some(count);
            let Some(view) = present(node) else { continue };
            let joins = |other: &usize| {
                component[*other].is_none() && present(*other).is_some_and(|other| view.overlaps(other))
            };
            reached.extend((0..ours.len()).filter(joins));
        }
        count += 1;
    }
    (component, count)
}
