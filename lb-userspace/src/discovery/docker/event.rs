//! One event of the daemon, as `GET /events` of the Docker Engine API writes it.

use std::collections::HashMap;

use serde::Deserialize;

/// An event of a container or a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What it is about: `container` or `network`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened to it.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
}

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// Id of the container or network.
    #[serde(rename = "ID")]
    pub id: String,
    /// Labels of the container, and what belongs to the event.
    #[serde(rename = "Attributes")]
    pub attributes: HashMap<String, String>,
}
