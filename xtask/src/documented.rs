//! What `CONTRIBUTING.md` says of the tasks must be what they are: a list that rots sends people the wrong way.

use crate::{TASKS, check, place};

const DOCUMENT: &str = "CONTRIBUTING.md";

/// What differs between its table and the tasks, and between what it says of `check` and the steps; each with its line.
fn differences(text: &str, tasks: &[String], steps: &str) -> Vec<(usize, String)> {
    let rows = || (1..).zip(text.lines()).filter_map(|(line, row)| Some((line, row.strip_prefix("| `cargo xtask ")?)));
    let named = |row: &str| row.split('`').next().unwrap_or_default().replace("\\|", "|");
    let mut found = Vec::new();
    for (line, row) in rows() {
        let name = named(row);
        if !tasks.iter().any(|task| task.trim_end() == name) {
            found.push((line, format!("there is no task `{name}`: `cargo xtask` lists them, with their arguments")));
        }
        let told = row.split('|').nth(1).unwrap_or_default().trim();
        if name == "check" && told.split(':').next() != Some(steps) {
            found.push((line, format!("`check` does: {steps}")));
        }
    }
    for task in tasks.iter().map(|task| task.trim_end()) {
        if !rows().any(|(_, row)| named(row) == task) {
            found.push((1, format!("has no row for the task `{task}`")));
        }
    }
    found
}

#[test]
fn the_document_lists_the_tasks_and_the_steps_of_check() {
    let text = std::fs::read_to_string(place::repository().join(DOCUMENT)).unwrap();
    let tasks: Vec<String> = TASKS.iter().map(|task| format!("{} {}", task.name, task.arguments)).collect();
    let found = differences(&text, &tasks, &check::steps());
    assert!(found.is_empty(), "{DOCUMENT}: {found:#?}");
}

#[test]
fn every_task_has_its_row_and_every_row_its_task() {
    let tasks = ["check ".to_owned(), "fuzz [all|TARGET]".to_owned()];
    let of = |text: &str| differences(text, &tasks, "a, b").into_iter().map(|(line, _)| line).collect::<Vec<_>>();
    let fuzz = "| `cargo xtask fuzz [all\\|TARGET]` | fuzzes |";
    assert_eq!(of(&format!("| `cargo xtask check` | a, b: in this order |\n{fuzz}")), [0; 0]);
    assert_eq!(of(&format!("| `cargo xtask check` | a: in this order |\n{fuzz}")), [1]);
    assert_eq!(of(&format!("{fuzz}\n| `cargo xtask old` | is gone |\n")), [2, 1]);
}
