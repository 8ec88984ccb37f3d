//! A relay in this process, on loopback, and the agents that a test needs, well-behaved or not.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile_modules;
#[cfg(test)]
mod hostile_peers;
#[cfg(test)]
mod hostile_streams;
#[cfg(test)]
mod serving;
