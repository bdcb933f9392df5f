//! Records as Markdown.

use std::fmt::Write;

use super::cases;
use super::machine::Machine;
use super::measure::REFERENCE;
use super::record::{Figures, NO_REFERENCE, PairRecord, Record};
use super::statistics::Summary;

/// Above this, figures are marked: the machine was not ours.
const BUSY: f64 = 0.05;

/// All records: the machine, one table of pairs, one a list of figures.
pub fn table(records: &[Record]) -> String {
    let mut text = String::new();
    let mut machines: Vec<&Machine> = Vec::new();
    for record in records {
        if !machines.iter().any(|machine| describe(machine) == describe(record.machine())) {
            machines.push(record.machine());
        }
    }
    for machine in machines {
        text.push_str(&describe(machine));
        text.push_str("\n\n");
    }
    let mut pairs: Vec<&PairRecord> = records.iter().filter_map(as_pair).collect();
    pairs.sort_by_cached_key(|pair| cases::position(&pair.name));
    if !pairs.is_empty() {
        pairs_table(&mut text, &pairs);
    }
    for record in records {
        if let Record::Figures(figures) = record {
            figures_table(&mut text, figures);
        }
    }
    text
}

/// One pair in a line, as it is measured.
pub fn line(record: &Record) -> String {
    match record {
        Record::Pair(pair) => format!(
            "ours {}, {} {}: {} as fast{}{}",
            seconds(pair.ours.seconds),
            pair.peer.engine,
            seconds(pair.peer.seconds),
            ratio(pair.ratio),
            verdict(pair),
            busy(pair)
        ),
        Record::Figures(figures) => format!("{} figures", figures.rows.len()),
    }
}

fn as_pair(record: &Record) -> Option<&PairRecord> {
    match record {
        Record::Pair(pair) => Some(pair),
        Record::Figures(_) => None,
    }
}

/// Without the commit, which may change while a long run is made in pieces.
fn describe(machine: &Machine) -> String {
    let memory = machine.memory_bytes.map_or(String::new(), |bytes| format!(", {} GB", bytes >> 30));
    let gpu = machine.gpu.as_ref().map_or(String::new(), |gpu| format!("{gpu}; "));
    format!(
        "{gpu}{}, {} cores{memory}, {}; {} threads; libtorch {}, {}.",
        machine.cpu,
        machine.cores,
        machine.instructions.join(" "),
        machine.threads,
        machine.libtorch,
        machine.rustc.split(" (").next().unwrap_or(&machine.rustc)
    )
}

fn pairs_table(text: &mut String, pairs: &[&PairRecord]) {
    text.push_str(
        "| case | ours | time | GFLOP/s (of bf16 Linear) | peer | time | ours is … as fast | target | difference, ours and peer | rounds, date, commit |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for pair in pairs {
        let target = pair.target.map_or_else(|| "–".to_owned(), |target| format!("{target}×{}", verdict(pair)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} {} | {} | {} | {target} | {} | {}, {}, {}{} |",
            pair.title,
            pair.ours.precision,
            seconds(pair.ours.seconds),
            speed(pair),
            pair.peer.engine,
            pair.peer.precision,
            seconds(pair.peer.seconds),
            ratio(pair.ratio),
            differences(pair),
            pair.ours.steps.len(),
            pair.machine.date,
            pair.machine.commit,
            busy(pair),
        );
    }
    text.push_str(
        "\nTimes are medians (quartiles) of steps; ratios, medians (quartiles) over rounds of the peer's time over ours. \
         Differences are ‖result − reference‖ / ‖reference‖, the reference being PyTorch's fp32 where no other is named. A `+` after a commit: there \
         were changes beside it.\n\n",
    );
}

fn figures_table(text: &mut String, figures: &Figures) {
    let _ = writeln!(text, "| {} | measured | target |\n|---|---|---|", figures.title);
    for row in &figures.rows {
        let _ = writeln!(text, "| {} | {} | {} |", row.what, row.measured, row.target.as_deref().unwrap_or("–"));
    }
    let _ = writeln!(text, "\n{}, {}.\n", figures.machine.date, figures.machine.commit);
}

/// `1.31 s (1.30–1.35)`, or in milliseconds.
pub fn seconds(time: Summary) -> String {
    if time.median < 0.1 {
        format!("{:.1} ms ({:.1}–{:.1})", time.median * 1e3, time.low * 1e3, time.high * 1e3)
    } else {
        format!("{:.2} s ({:.2}–{:.2})", time.median, time.low, time.high)
    }
}

fn ratio(ratio: Summary) -> String {
    format!("{:.2}× ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
}

fn verdict(pair: &PairRecord) -> &'static str {
    match pair.target {
        Some(target) if pair.ratio.median >= target => ", met",
        Some(_) => ", **missed**",
        None => "",
    }
}

fn busy(pair: &PairRecord) -> String {
    let idle = [&pair.ours, &pair.peer].iter().filter_map(|side| side.idle_share).fold(0.0, f64::max);
    let mut notes = String::new();
    if let Some(taken) = pair.taken_by_others.filter(|&taken| taken > BUSY) {
        let _ = write!(notes, "; others took {:.0} % of the machine", taken * 100.0);
    }
    if idle > BUSY {
        let _ = write!(notes, "; the idle engine used {:.0} % of a core", idle * 100.0);
    }
    notes
}

/// Of a step's matrix products, and as a share of what bf16 Linear reached in the same minutes.
fn speed(pair: &PairRecord) -> String {
    let (Some(flop), Some(rate)) = (pair.flop, Summary::of(&pair.linear_bf16)) else { return "–".to_owned() };
    let speed = flop / pair.ours.seconds.median / 1e9;
    format!("{speed:.0} ({:.0} % of {:.0})", speed / rate.median * 100.0, rate.median)
}

fn differences(pair: &PairRecord) -> String {
    if pair.reference == NO_REFERENCE {
        return "tested apart".to_owned();
    }
    let text = |difference: Option<f64>| {
        difference.map_or_else(|| "**not comparable**".to_owned(), |difference| format!("{difference:.1e}"))
    };
    let from = if pair.reference == REFERENCE.name() { String::new() } else { format!(" (from {})", pair.reference) };
    format!("{}, {}{from}", text(pair.ours.difference), text(pair.peer.difference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Figure, Side};

    fn side(engine: &str, seconds: f64) -> Side {
        let steps = vec![seconds; 3];
        Side {
            engine: engine.into(),
            precision: "bf16".into(),
            seconds: Summary::of(&steps).unwrap(),
            steps,
            seconds_load: None,
            seconds_prepare: None,
            peak_rss_bytes: None,
            difference: Some(0.015),
            idle_share: Some(0.0),
        }
    }

    fn pair(ratio: f64, taken: f64) -> PairRecord {
        PairRecord {
            name: "xl2-256/bf16/compile-bf16".into(),
            title: "DiT-XL/2".into(),
            device: "cpu".into(),
            ours: side("dit-rs", 0.5),
            peer: side("PyTorch", 0.5 * ratio),
            ratio: Summary { median: ratio, low: ratio, high: ratio },
            target: Some(1.15),
            flop: Some(300e9),
            linear_bf16: vec![700.0, 800.0],
            taken_by_others: Some(taken),
            reference: "eager-fp32".into(),
            machine: Machine::example(),
        }
    }

    #[track_caller]
    fn check(pair: PairRecord, expected: &[&str]) {
        let text = table(&[Record::Pair(Box::new(pair))]);
        for part in expected {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn a_pair_says_how_fast_how_right_and_how_sure() {
        check(
            pair(1.2, 0.0),
            &["Example 1, 2 cores, 24 GB", "| DiT-XL/2 | bf16 | 0.50 s (0.50–0.50) | 600 (80 % of 750) |"],
        );
        check(pair(1.2, 0.0), &["1.20× (1.20–1.20) | 1.15×, met | 1.5e-2, 1.5e-2 |"]);
        check(pair(1.1, 0.3), &["1.15×, **missed**", "others took 30 % of the machine"]);
        let mut wrong = pair(1.2, 0.0);
        wrong.ours.difference = None;
        check(wrong, &["**not comparable**"]);
        let mut without_pytorch = pair(1.2, 0.0);
        without_pytorch.reference = "ours-fp32".into();
        check(without_pytorch, &["| 1.5e-2, 1.5e-2 (from ours-fp32) |"]);
    }

    #[test]
    fn figures_are_a_table_of_their_own() {
        let rows = vec![Figure { what: "help".into(), measured: "4 ms".into(), target: Some("50 ms".into()) }];
        let figures = Figures { name: "startup".into(), title: "Start-up".into(), rows, machine: Machine::example() };
        let text = table(&[Record::Figures(Box::new(figures))]);
        assert!(text.contains("| Start-up | measured | target |\n|---|---|---|\n| help | 4 ms | 50 ms |"), "{text}");
    }
}
