//! What is counted, as Prometheus reads it (text format 0.0.4): names `ftq_*`, base units, counters end in `_total`.
//! All of it was counted before: a scrape only reads.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use crate::marks;
use crate::reactor::disk::Durations;
use crate::reactor::guests::{self, Guests};
use crate::reactor::http::Http;
use crate::reactor::peers::PeerCounters;
use crate::reactor::udp::UdpCounters;
use crate::replica::Replica;
use crate::wire::answer::{split, Code};
use crate::wire::codec::Reader;
use crate::wire::operation::{QueueQuery, QueueRow};

/// Queues that have lines of their own, and those that are in the sums: the first ones by label, so that a scrape
/// never holds up the loop.
const QUEUES_SHOWN_MAX: usize = 500;
const QUEUES_SUMMED_MAX: usize = 5000;

/// What is counted outside of the replica and the HTTP door.
pub struct Sources<'a> {
    /// Places passed, `marks`, and how often.
    pub passed: &'a BTreeMap<&'static str, u64>,
    pub datagrams: &'a UdpCounters,
    pub streams: &'a PeerCounters,
    pub clients: usize,
    pub guests: &'a Guests,
    /// From a batch's start until it was on the disk.
    pub synced: &'a Durations,
    /// From when the oldest write of a batch was handed over.
    pub durable: &'a Durations,
}

/// The whole page.
pub fn page(http: &Http, replica: &Replica, sources: &Sources<'_>) -> String {
    let mut page = Page::default();
    page.standing(replica);
    page.repair(replica, sources);
    page.traffic(http, replica, sources);
    page.state(replica);
    page.histogram("ftq_log_sync_seconds", "Time to write and sync one batch of the log.", sources.synced);
    page.histogram("ftq_log_durable_seconds", "Time until what was logged is durable.", sources.durable);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string never fails.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// One family, a sample for each value of a label.
    fn each<L: AsRef<str>>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.family(name, kind, help);
        for (of, value) in values {
            self.sample(name, &[(label, of.as_ref())], value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        self.family(name, "histogram", help);
        for (bound_seconds, count) in durations.cumulated() {
            self.sample(&format!("{name}_bucket"), &[("le", &bound_seconds.to_string())], count);
        }
        self.sample(&format!("{name}_bucket"), &[("le", "+Inf")], durations.count());
        self.sample(&format!("{name}_sum"), &[], durations.sum_seconds());
        self.sample(&format!("{name}_count"), &[], durations.count());
    }

    /// Who this is, its view and how far it is.
    fn standing(&mut self, replica: &Replica) {
        let (me, view) = (replica.group().me(), replica.group().newest());
        self.family("ftq_info", "gauge", "The replica and its version.");
        let id = me.id.to_string();
        self.sample("ftq_info", &[("id", &id), ("version", env!("CARGO_PKG_VERSION"))], 1);
        self.counter("ftq_starts_total", "Starts of this replica.", me.incarnation.0);
        let primary = u8::from(replica.reason().is_none());
        self.gauge("ftq_primary", "Whether it is in a primary view that serves.", primary);
        self.gauge("ftq_view_epoch", "The epoch of the newest view it knows.", view.map_or(0, |view| view.epoch.0));
        self.gauge("ftq_view_members", "Members of that view.", view.map_or(0, |view| view.members.len()));
        let (known, durable) = (replica.known().0, replica.durable().0);
        let (committed, applied) = (replica.committed().0, replica.applied().0 .0);
        let slots = [("known", known), ("durable", durable), ("committed", committed), ("applied", applied)];
        self.each(("ftq_slot", "gauge", "The highest slot up to which the order is so."), "is", slots);
    }

    /// Changes of the view, what was lost and sent again, and what was dropped.
    fn repair(&mut self, replica: &Replica, sources: &Sources<'_>) {
        let passed = |mark: &str| sources.passed.get(mark).copied().unwrap_or(0);
        let views = [
            ("proposed", passed(marks::PROPOSED)),
            ("frozen", passed(marks::FROZEN)),
            ("installed", passed(marks::VIEW_INSTALLED)),
        ];
        self.each(("ftq_views_total", "counter", "Changes of the view, by how far they came here."), "step", views);
        let nacks =
            [("order", passed(marks::NACK_ORDER)), ("data", passed(marks::NACK_DATA) + passed(marks::NACK_THIRD))];
        self.each(("ftq_nacks_total", "counter", "Gaps that this replica asked for."), "of", nacks);
        let own = ("own-data", passed(marks::RESENT_DATA));
        let resent = [("order", passed(marks::RESENT_ORDER)), own, ("foreign-data", passed(marks::RESENT_FOREIGN))];
        self.each(("ftq_resends_total", "counter", "Orders and messages sent again because one asked."), "of", resent);
        let held = passed(marks::RESEND_HELD);
        self.counter("ftq_resends_held_total", "Askings that were not answered in full at once.", held);
        let twice = [("order", passed(marks::DUPLICATE_ORDER)), ("data", passed(marks::DUPLICATE_DATA))];
        self.each(("ftq_duplicates_total", "counter", "Orders and messages that came twice."), "of", twice);
        let drops = replica.group().drops().iter().map(|(why, count)| (format!("{why:?}"), *count));
        self.each(("ftq_drops_total", "counter", "Datagrams and frames dropped, by reason."), "reason", drops);
    }

    /// Datagrams, frames, connections and requests.
    fn traffic(&mut self, http: &Http, replica: &Replica, sources: &Sources<'_>) {
        let UdpCounters { received, strangers, sent, faults, full, too_long, refused, failed } = *sources.datagrams;
        let datagrams = [("received", received), ("sent", sent), ("stranger", strangers), ("buffer-full", full)];
        let others = [("too-long", too_long), ("refused", refused), ("failed", failed), ("fault", faults)];
        let all = datagrams.into_iter().chain(others);
        self.each(("ftq_datagrams_total", "counter", "Datagrams, by what became of them."), "fate", all);
        let PeerCounters { received, sent, dropped, faults, strangers, malformed } = *sources.streams;
        let frames = [("received", received), ("sent", sent), ("dropped", dropped), ("fault", faults)];
        let frames = frames.into_iter().chain([("stranger", strangers), ("malformed", malformed)]);
        self.each(("ftq_stream_frames_total", "counter", "Frames of streams between replicas."), "fate", frames);
        self.gauge("ftq_clients", "Connections of clients.", sources.clients);
        self.guests(sources.guests);
        let answered = replica.answered().map(|(code, count)| (code.name(), count));
        self.each(("ftq_requests_total", "counter", "Requests of clients answered here, by code."), "code", answered);
        self.gauge("ftq_http_connections", "Connections of HTTP clients.", http.count());
        self.gauge("ftq_http_held_bytes", "Requests not whole and answers not taken, of HTTP clients.", http.held());
        let counters = &http.counters;
        self.counter("ftq_http_accepted_total", "Connections of HTTP clients so far.", counters.connections);
        self.counter("ftq_http_turned_away_total", "HTTP clients for whom there was no room.", counters.turned_away);
        let answers = counters.answers.iter().map(|(status, count)| (status.to_string(), *count));
        self.each(("ftq_http_requests_total", "counter", "HTTP requests answered, by status."), "code", answers);
    }

    /// Clients by datagrams.
    fn guests(&mut self, guests: &Guests) {
        self.gauge("ftq_datagram_clients", "Clients that send datagrams.", guests.count());
        let guests::Counters { taken, answered, strangers, malformed, busy, too_long, unasked } = guests.counters;
        let asked = [("taken", taken), ("stranger", strangers), ("malformed", malformed), ("busy", busy)];
        self.each(("ftq_datagram_requests_total", "counter", "Datagrams of clients, by fate."), "fate", asked);
        let told = [("sent", answered), ("too-long", too_long), ("unasked", unasked)];
        self.each(("ftq_datagram_answers_total", "counter", "Answers to datagrams of clients."), "fate", told);
    }

    /// Sessions, queues and memory.
    fn state(&mut self, replica: &Replica) {
        self.gauge("ftq_sessions", "Sessions in the replicated table.", replica.sessions());
        self.gauge("ftq_memory_bytes", "Memory that the replicated state takes, roughly.", replica.memory_bytes());
        let limit = replica.memory_limit_bytes();
        self.gauge("ftq_memory_limit_bytes", "What the state may take before pushes are refused.", limit);
        self.gauge("ftq_buffered_bytes", "Messages and requests held.", replica.buffered_bytes());
        let queues = queues(replica);
        let sum = |field: fn(&Queue) -> u64| queues.iter().map(field).sum::<u64>();
        self.gauge("ftq_queues", "Queues.", queues.len());
        self.gauge("ftq_items", "Items ready in all queues.", sum(|queue| queue.numbers[0]));
        self.gauge("ftq_items_bytes", "Bytes of the items of all queues.", sum(|queue| queue.numbers[4]));
        let families = [
            ("ftq_queue_items", "Items ready, by queue."),
            ("ftq_queue_leased_items", "Items leased, by queue."),
            ("ftq_queue_delayed_items", "Items delayed, by queue."),
            ("ftq_queue_waiters", "Clients that wait for items, by queue."),
            ("ftq_queue_bytes", "Bytes of the items, by queue."),
        ];
        for (k, (name, help)) in families.into_iter().enumerate() {
            let shown = queues.iter().take(QUEUES_SHOWN_MAX).map(|queue| (queue.label.as_str(), queue.numbers[k]));
            self.each((name, "gauge", help), "queue", shown);
        }
    }
}

struct Queue {
    label: String,
    /// Ready, leased, delayed, waiters, bytes.
    numbers: [u64; 5],
}

/// The queues, page by page as clients list them.
fn queues(replica: &Replica) -> Vec<Queue> {
    let mut queues: Vec<Queue> = Vec::new();
    loop {
        let (mut query, mut answer) = (Vec::new(), Vec::new());
        QueueQuery::List { after: queues.last().map_or("", |queue| queue.label.as_str()) }.encode(&mut query);
        replica.look(&query, &mut answer);
        let Ok((Code::Ok, fields)) = split(&answer) else { return queues };
        let (mut r, before) = (Reader::new(fields), queues.len());
        while let Ok(row) = QueueRow::decode(&mut r) {
            let numbers = [row.size, row.leased, row.delayed, row.waiters, row.bytes];
            queues.push(Queue { label: row.label.to_owned(), numbers });
        }
        if queues.len() == before || queues.len() >= QUEUES_SUMMED_MAX {
            return queues;
        }
    }
}

/// A label's value as it stands in quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_their_form() {
        let mut page = Page::default();
        page.counter("ftq_x_total", "X.", 7);
        page.each(("ftq_y", "gauge", "Y."), "of", [("a\"b\\c\nd", 1)]);
        let expected = "# HELP ftq_x_total X.\n# TYPE ftq_x_total counter\nftq_x_total 7\n\
                        # HELP ftq_y Y.\n# TYPE ftq_y gauge\nftq_y{of=\"a\\\"b\\\\c\\nd\"} 1\n";
        assert_eq!(page.text, expected);
    }

    #[test]
    fn a_histogram_adds_up() {
        let mut durations = Durations::default();
        [1, 1_000_000, 2_000_000_000_000].into_iter().for_each(|ns| durations.add(ns));
        let mut page = Page::default();
        page.histogram("ftq_t_seconds", "T.", &durations);
        assert!(page.text.contains("ftq_t_seconds_bucket{le=\"+Inf\"} 3\n"), "{}", page.text);
        assert!(page.text.ends_with("ftq_t_seconds_sum 2000.001000001\nftq_t_seconds_count 3\n"), "{}", page.text);
        let counts: Vec<u64> = durations.cumulated().map(|(_, count)| count).collect();
        assert!(counts.windows(2).all(|w| w[0] <= w[1]) && counts.last() == Some(&2), "{counts:?}");
    }
}
