//! The network between the replicas as the lab wants it: who reaches whom, how much is lost, how late the rest comes.
//! Each replica does this to what it sends itself (`reactor::fault`), so that clients reach all of them.

use std::collections::BTreeSet;

use crate::types::ReplicaId;

/// Replicas that reach each other.
pub type Side = BTreeSet<ReplicaId>;

/// Milliseconds that a datagram may be late.
pub const DELAY_MS_MAX: u64 = 60_000;

/// What holds for all that the replicas send each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// Each replica is in one of these and reaches those in it.
    pub sides: Vec<Side>,
    pub loss_percent: f64,
    pub delay_ms: u64,
}

impl Network {
    /// A whole one.
    pub fn new(count: u8) -> Network {
        Network { sides: vec![everybody(count)], loss_percent: 0.0, delay_ms: 0 }
    }

    /// Whether nothing is wrong with it.
    pub fn is_whole(&self) -> bool {
        self.sides.len() == 1 && self.loss_percent == 0.0 && self.delay_ms == 0
    }

    /// Those that a replica reaches, itself included.
    pub fn side_of(&self, id: ReplicaId) -> &Side {
        self.sides.iter().find(|side| side.contains(&id)).expect("the sides are all replicas")
    }

    /// The lines that tell a replica to behave so, whatever it did before.
    pub fn told_to(&self, id: ReplicaId) -> String {
        let mut lines = "heal\n".to_owned();
        if self.sides.len() > 1 {
            lines += &format!("partition {}\n", list(self.side_of(id)));
        }
        if self.loss_percent > 0.0 {
            lines += &format!("loss {}\n", self.loss_percent);
        }
        if self.delay_ms > 0 {
            lines += &format!("delay {}\n", self.delay_ms);
        }
        lines
    }

    /// What is wrong with it, for people.
    pub fn describe(&self) -> String {
        let mut all = Vec::new();
        if self.sides.len() > 1 {
            let sides: Vec<String> = self.sides.iter().map(|side| format!("{{{}}}", list(side))).collect();
            all.push(format!("partition {}", sides.join(" / ")));
        }
        if self.loss_percent > 0.0 {
            all.push(format!("loss {} %", self.loss_percent));
        }
        if self.delay_ms > 0 {
            all.push(format!("delay {} ms", self.delay_ms));
        }
        if all.is_empty() {
            return "whole".to_owned();
        }
        all.join(", ")
    }
}

/// All replicas of a lab.
pub fn everybody(count: u8) -> Side {
    (1..=count).map(ReplicaId).collect()
}

/// `1,2`
pub fn list(ids: &Side) -> String {
    ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

/// Reads `1,2 / 3`; who is not named is on one more side with all others not named. Errors say what is wrong.
pub fn parse_sides(text: &str, count: u8) -> Result<Vec<Side>, String> {
    let (mut sides, mut rest) = (Vec::new(), everybody(count));
    for part in text.split('/') {
        let mut side = Side::new();
        for id in parse_ids(part, count)? {
            if !rest.remove(&id) {
                return Err(format!("replica {id} is named twice"));
            }
            side.insert(id);
        }
        sides.push(side);
    }
    if !rest.is_empty() {
        sides.push(rest);
    }
    if sides.len() < 2 {
        return Err("all replicas on one side are no partition; 'heal' ends one".to_owned());
    }
    Ok(sides)
}

/// Reads `1,2 3`, at least one. Errors say what is wrong.
pub fn parse_ids(text: &str, count: u8) -> Result<Vec<ReplicaId>, String> {
    let words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let ids = words.map(|word| match word.parse::<u8>() {
        Ok(id) if (1..=count).contains(&id) => Ok(ReplicaId(id)),
        _ => Err(format!("'{word}' is no replica of this lab: 1 to {count}")),
    });
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Err("which replica?".to_owned());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::fault::Faults;

    fn sides(text: &str) -> Result<Vec<String>, String> {
        parse_sides(text, 4).map(|sides| sides.iter().map(list).collect())
    }

    #[test]
    fn sides_are_read() {
        assert_eq!(sides("1,2 / 3,4"), Ok(vec!["1,2".into(), "3,4".into()]));
        assert_eq!(sides("1/2/3 4"), Ok(vec!["1".into(), "2".into(), "3,4".into()]));
        assert_eq!(sides("3"), Ok(vec!["3".into(), "1,2,4".into()]), "the others are together");
        assert!(sides("1,2,3,4").is_err_and(|why| why.contains("no partition")));
        assert!(sides("1,2 / 2").is_err_and(|why| why.contains("twice")));
        assert!(sides("1 / 5").is_err_and(|why| why.contains("'5' is no replica")));
        assert!(sides("1 //").is_err_and(|why| why.contains("which")));
        assert!(sides("").is_err());
        assert!(sides("x / 1").is_err());
    }

    #[test]
    fn a_replica_understands_what_it_is_told() {
        let mut network = Network::new(3);
        assert!(network.is_whole());
        assert_eq!((network.told_to(ReplicaId(1)), network.describe()), ("heal\n".into(), "whole".into()));
        network.sides = parse_sides("1,2 / 3", 3).expect("sides");
        (network.loss_percent, network.delay_ms) = (2.5, 30);
        assert_eq!(network.describe(), "partition {1,2} / {3}, loss 2.5 %, delay 30 ms");
        let mut faults = Faults::new(1);
        network.told_to(ReplicaId(2)).lines().for_each(|line| faults.command(line).expect(line));
        assert!(faults.cuts(ReplicaId(3)) && !faults.cuts(ReplicaId(1)) && !network.is_whole());
    }
}
