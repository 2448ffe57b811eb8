//! Faults made on purpose, against the real binary: processes killed, frozen and restarted, databases killed, slow and
//! out of reach, clients that give up, more than can be taken. After each, everything acknowledged is there, nothing counts
//! twice, and what is stored is what the log says. docs/reliability.md has the list, and how to run it.
//!
//! A test is a fault. `CHAOS=full` makes more of each (20 minutes in all), `CHAOS=soak` goes on for hours; without it, all
//! of them together take a minute and a half. `CHAOS_SEED` repeats what was sent and what was planned.

#[cfg(test)]
mod checker;
#[cfg(test)]
mod client;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod database;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod load;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod places;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod report;
#[cfg(test)]
mod server;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod two;
