//! Known bugs, planted on demand, so that the tests of crashes and of damage can prove that they would see them.
//!
//! Owns the switch and nothing else. With the feature `planted-bugs` off the type has one value and every
//! question below is the constant `false`.

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident $question:ident)*) => {
        /// Which known bug recovery has.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum Plant {
            /// None.
            #[default]
            None,
            $($(#[$doc])* #[cfg(feature = "planted-bugs")] $name,)*
        }

        impl Plant {
            /// Every bug that this build can plant.
            pub const ALL: &[Plant] = &[$(#[cfg(feature = "planted-bugs")] Plant::$name,)*];

            $(
                #[cfg(feature = "planted-bugs")]
                pub(crate) fn $question(self) -> bool {
                    self == Plant::$name
                }
                #[cfg(not(feature = "planted-bugs"))]
                pub(crate) fn $question(self) -> bool {
                    false
                }
            )*
        }
    };
}

plants! {
    /// A last group that does not check is cut, although it may have been acknowledged.
    CutsCorruptTail cuts_corrupt_tail
    /// A file whose header was being written when the machine stopped keeps the log from starting (ZOOKEEPER-1621).
    RefusesHalfHeader refuses_half_header
    /// What recovery has read is taken for durable, although after a failed sync it may be in the cache alone.
    TrustsTheCache trusts_the_cache
    /// A log that begins after damage takes what it has accepted for all that it has promised.
    RepairForgetsPromise repair_forgets_promise
}
