//! Push rules as pure questions: whom does an event notify, in which thread is it.
//!
//! Most members have the rules that everybody starts with, and those ask for nothing that is the member's own but whether
//! the event concerns them. So it is judged once for all of them, and once more for those whom it does. Who changed their
//! rules is judged with those who changed them in the same way.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

mod defaults;
mod glob;
mod names;
mod rules;
mod subject;

use std::ops::{Add, AddAssign, Neg, Sub};

pub use self::{
    defaults::default_rules,
    glob::{MAX_GLOB, is_glob},
    names::{CalledBy, Names},
    rules::{Classes, DEFAULT_CLASS, Rules},
    subject::{Concern, Place, Subject},
};

/// How often somebody is notified, and how often of something that is meant for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notify: i64,
    pub highlight: i64,
}

impl Counts {
    pub const NONE: Self = Self { notify: 0, highlight: 0 };

    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { notify: self.notify + other.notify, highlight: self.highlight + other.highlight }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Counts {
    type Output = Self;
    fn neg(self) -> Self {
        Self { notify: -self.notify, highlight: -self.highlight }
    }
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

#[cfg(test)]
mod tests;
