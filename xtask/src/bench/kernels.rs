//! The Criterion benches of the kernels, and what they wrote.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::machine::Machine;
use super::record::{Figure, Figures, Record};
use super::report;
use super::statistics::Summary;
use crate::workspace::Workspace;

pub fn measure(workspace: &Workspace, machine: &Machine, quick: bool) -> Result<Record> {
    let mut cargo = workspace.cargo();
    // A folder of this run's own, not last week's results beside today's.
    let results = workspace.root().join("target/bench/criterion");
    if results.exists() {
        fs::remove_dir_all(&results).with_context(|| format!("{} cannot be removed", results.display()))?;
    }
    cargo.arg("bench");
    for package in packages(&workspace.root().join("crates"))? {
        cargo.args(["-p", &package]);
    }
    // Not --benches: that runs unit tests too, which do not know Criterion's flags.
    cargo.args(["--bench", "*", "--", "--noplot"]).env("CRITERION_HOME", &results);
    if quick {
        cargo.args(["--warm-up-time", "0.1", "--measurement-time", "0.2", "--sample-size", "10"]);
    }
    let status = cargo.status().context("cargo does not start")?;
    ensure!(status.success(), "the benches failed; what cargo says is above");
    let mut rows = Vec::new();
    collect(&results, &mut rows)?;
    ensure!(!rows.is_empty(), "Criterion left no results in {}", results.display());
    rows.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(Record::Figures(Box::new(Figures {
        name: "kernels".to_owned(),
        title: "Kernel".to_owned(),
        rows,
        machine: machine.clone(),
    })))
}

/// The crates that have benches.
fn packages(crates: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(crates).with_context(|| crates.display().to_string())? {
        let entry = entry?;
        let benches = fs::read_dir(entry.path().join("benches")).into_iter().flatten().flatten();
        if benches.into_iter().any(|file| file.path().extension().is_some_and(|extension| extension == "rs")) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no crate has benches");
    Ok(names)
}

/// Every `new/estimates.json` below, under the name beside it.
fn collect(folder: &Path, rows: &mut Vec<Figure>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            let (benchmark, estimates) = (path.join("benchmark.json"), path.join("estimates.json"));
            if path.ends_with("new") && benchmark.exists() && estimates.exists() {
                let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
                rows.extend(figure(&read(&benchmark)?, &read(&estimates)?));
            } else {
                collect(&path, rows)?;
            }
        }
    }
    Ok(())
}

/// The median and its confidence interval.
fn figure(benchmark: &Value, estimates: &Value) -> Option<Figure> {
    let median = estimates.get("median")?;
    let interval = median.get("confidence_interval")?;
    let seconds = |value: &Value| Some(value.as_f64()? * 1e-9);
    let time = Summary {
        median: seconds(median.get("point_estimate")?)?,
        low: seconds(interval.get("lower_bound")?)?,
        high: seconds(interval.get("upper_bound")?)?,
    };
    let what = benchmark.get("full_id")?.as_str()?.to_owned();
    Some(Figure { what, measured: report::seconds(time), target: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_with_benches_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["ops/benches/linear.rs", "model/benches/README.md", "data/src/lib.rs"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(packages(folder.path()).unwrap(), ["ops"]);
        assert!(packages(&folder.path().join("ops")).is_err());
    }

    #[test]
    fn criterions_files_become_rows() {
        let folder = tempfile::tempdir().unwrap();
        for (bench, nanoseconds) in [("linear/fp32", 2.5e6), ("gelu", 5e5)] {
            let new = folder.path().join(bench).join("new");
            fs::create_dir_all(&new).unwrap();
            fs::write(new.join("benchmark.json"), format!(r#"{{"full_id":"{bench}"}}"#)).unwrap();
            let estimates = format!(
                r#"{{"median":{{"point_estimate":{nanoseconds},"confidence_interval":{{"lower_bound":{nanoseconds},"upper_bound":{nanoseconds}}}}}}}"#
            );
            fs::write(new.join("estimates.json"), estimates).unwrap();
        }
        let mut rows = Vec::new();
        collect(folder.path(), &mut rows).unwrap();
        rows.sort_by(|a, b| a.what.cmp(&b.what));
        let rows: Vec<(&str, &str)> = rows.iter().map(|row| (row.what.as_str(), row.measured.as_str())).collect();
        assert_eq!(rows, [("gelu", "0.5 ms (0.5–0.5)"), ("linear/fp32", "2.5 ms (2.5–2.5)")]);
    }
}
