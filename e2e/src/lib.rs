//! Pharos end to end: a one-node Kubernetes, container images without a registry, and what the tests on them share.
//!
//! Owns the box that the cluster runs in and everything that reaches into it. Must not know the inside of the operator
//! or of a member: tests see what a user sees, through kubectl, Helm and unmodified ZooKeeper clients.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod command;
pub mod environment;
pub mod image;
pub mod install;
pub mod kubebox;
pub mod local;
mod local_members;
pub mod netns;
pub mod objects;
pub mod pipelines;
pub mod real_zookeeper;
pub mod sandbox;
pub mod volume;
pub mod watch;
pub mod wire;
pub mod zkdiff;
pub mod zookeeper;
