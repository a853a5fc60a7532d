//! The list itself: patterns of names, chosen so that they bring in little that is not executed.

use std::collections::{BTreeMap, BTreeSet};

use super::sections::Section;
use super::size;

/// Where a name is cut, if no other name begins like it: some are longer than a page.
const LENGTHS: [usize; 3] = [100, 200, 400];
/// How much a pattern may bring in: so many times what is executed of it, and so many bytes more. What brings in little lies
/// together; behind it lies what brings in much, because a generic function has the same name for all types but for
/// a hash, and is still nearer than where it comes from.
const LITTLE: (u64, u64) = (2, 512);
const MUCH: (u64, u64) = (8, 4096);

const HEAD: &str = "\
/* For GNU ld, beside its own script: what an executor and its children execute for an order lies together, and behind it what
   a process of the command line executes when it makes one connection and runs one script; between the two, what both do.
   A page of code is brought in with its neighbours, sixteen at once: scattered over the whole file, as the crates come,
   these functions bring in nearly all of it. A name that no longer exists is passed over, and such a function is then where
   it would have been without this. Written by `cargo xtask usual`, from what it saw of orders to each kind of executor, of
   two runs, with and without --no-resume, and of a ping. */
SECTIONS
{
  .text.usual :
  {
";
const TAIL: &str = "  }\n}\nINSERT BEFORE .text;\n";

/// Patterns, each as it stands in the script, in parts that lie one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct List {
    parts: [BTreeSet<String>; 4],
}

impl List {
    /// What is executed by calls, and for orders, less what stands for far too much besides.
    pub(super) fn choose(sections: &[Section], calls: &[bool], orders: &[bool]) -> Self {
        let [near_calls, near_orders] = [calls, orders].map(|executed| chosen(sections, executed, LITTLE));
        let either: Vec<bool> = calls.iter().zip(orders).map(|(call, order)| *call || *order).collect();
        let both = near_orders.intersection(&near_calls).cloned().collect();
        let of = |near: &BTreeSet<String>, other| near.difference(other).cloned().collect::<BTreeSet<_>>();
        let [orders, calls] = [of(&near_orders, &near_calls), of(&near_calls, &near_orders)];
        let mut behind = chosen(sections, &either, MUCH);
        behind.retain(|pattern| !near_calls.contains(pattern) && !near_orders.contains(pattern));
        Self { parts: [orders, both, calls, behind] }
    }

    /// The linker script.
    pub(super) fn script(&self) -> String {
        let lines = |patterns: Vec<&String>, indent: &str| -> String {
            patterns.into_iter().flat_map(|pattern| [indent, pattern, "\n"]).collect()
        };
        let parts = self.parts.iter().map(|part| {
            let (functions, files): (Vec<_>, Vec<_>) = part.iter().partition(|pattern| pattern.starts_with('.'));
            let (functions, files) = (lines(functions, "      "), lines(files, "    "));
            let functions = if functions.is_empty() { functions } else { format!("    *(\n{functions}    )\n") };
            functions + &files
        });
        format!("{HEAD}{}{TAIL}", parts.collect::<String>())
    }

    /// What the list does.
    pub(super) fn figures(&self, sections: &[Section], executed: &[bool]) -> String {
        let seen = || sections.iter().zip(executed).filter(|(_, executed)| **executed).map(|(section, _)| section);
        let listed = |section: &&Section| self.has(&section.pattern);
        let (brought, kept) = (size(sections.iter().filter(listed)), size(seen().filter(listed)));
        format!(
            "executed: {} functions of {} KiB; listed: {} patterns, which stand for {} KiB, of which {} KiB are executed",
            seen().count(),
            size(seen()) / 1024,
            self.parts.iter().map(BTreeSet::len).sum::<usize>(),
            brought / 1024,
            kept / 1024
        )
    }

    /// Whether one of the patterns stands for this name. A pattern that was cut is one of its beginnings.
    fn has(&self, name: &str) -> bool {
        let has = |pattern: &str| self.parts.iter().any(|part| part.contains(pattern));
        has(name) || LENGTHS.into_iter().filter_map(|length| name.get(..length)).any(|begin| has(&format!("{begin}*")))
    }
}

/// The patterns of what is executed that bring in no more than so much.
fn chosen(sections: &[Section], executed: &[bool], (times, more): (u64, u64)) -> BTreeSet<String> {
    let mut all: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (section, executed) in sections.iter().zip(executed) {
        let (whole, part) = all.entry(&section.pattern).or_default();
        *whole += section.size;
        *part += if *executed { section.size } else { 0 };
    }
    let fits = |whole: u64, part: u64| part > 0 && whole <= part * times + more;
    let chosen = all.iter().filter(|(_, (whole, part))| fits(*whole, *part));
    let chosen = chosen.flat_map(|(pattern, _)| [(*pattern).to_owned(), newer(pattern)]);
    let known = chosen.filter(|pattern| all.contains_key(pattern.as_str()));
    known.map(|pattern| cut(&pattern, &all)).collect()
}

/// How many patterns of a script no longer stand for anything.
pub(super) fn lost(script: &str, sections: &[Section]) -> String {
    let known: BTreeSet<&str> = sections.iter().map(|section| section.pattern.as_str()).collect();
    let patterns = patterns(script);
    let lost = patterns.iter().filter(|pattern| !stands_for_any(pattern, &known)).count();
    format!("until now: {} patterns, of which {lost} stand for nothing", patterns.len())
}

/// The patterns of a script that [`List::script`] wrote.
fn patterns(script: &str) -> Vec<&str> {
    let of_code = |line: &&str| line.starts_with(".text.") && !line.ends_with(':') || line.ends_with("(.text)");
    script.lines().map(str::trim).filter(of_code).collect()
}

/// What aws-lc has for processors with ADX, which valgrind's is not, in the place of this.
fn newer(pattern: &str) -> String {
    pattern.replace("_alt.o(", ".o(")
}

/// A pattern, as short as it may be without standing for more.
fn cut(pattern: &str, all: &BTreeMap<&str, (u64, u64)>) -> String {
    let alone = |begin: &&str| all.range(*begin..).take_while(|(other, _)| other.starts_with(*begin)).count() == 1;
    let begin = LENGTHS.into_iter().filter_map(|length| pattern.get(..length)).find(alone);
    begin.map_or_else(|| pattern.to_owned(), |begin| format!("{begin}*"))
}

/// `known` holds whole patterns.
fn stands_for_any(pattern: &str, known: &BTreeSet<&str>) -> bool {
    let begin = pattern.strip_suffix('*').unwrap_or(pattern);
    known.contains(pattern)
        || begin != pattern && known.range(begin..).next().is_some_and(|other| other.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::sections;
    use super::*;

    /// A map of functions of these sizes, one behind the other.
    fn map(functions: &[(&str, u64)]) -> Vec<Section> {
        let (mut at, mut text) = (0x1000, "Linker script and memory map\n".to_owned());
        for (name, size) in functions {
            let _ = write!(text, " {name}\n    {at:#x} {size:#x} /a/0123456789abcdef-{}.o\n", name.len());
            at += size;
        }
        sections::read(&text)
    }

    #[test]
    fn what_a_name_stands_for_besides_puts_it_behind_or_leaves_it_out() {
        let hash = |end: char| format!("17h0123456789abcde{end}E");
        let name = |(function, end): (&str, char)| format!(".text._ZN{function}{}", hash(end));
        let poll = [("4poll", 'a'), ("4poll", 'b')].map(name);
        let kind = [("4type", 'a'), ("4type", 'b')].map(name);
        let drop = [("4drop", 'a'), ("4drop", 'b')].map(name);
        let pairs = [(&poll, [100, 9000]), (&kind, [100, 3000]), (&drop, [100, 300])];
        let pairs = pairs.iter().flat_map(|(names, sizes)| names.iter().map(String::as_str).zip(*sizes));
        let all: Vec<(&str, u64)> = pairs.chain([(".text", 5), (".text.idle", 7)]).collect();
        let sections = map(&all);
        let executed = [true, false, true, false, true, false, true, false];
        let list = List::choose(&sections, &executed, &[false; 8]);
        let script = list.script();
        assert_eq!(patterns(&script), [".text._ZN4drop17h*", "*-5.o(.text)", ".text._ZN4type17h*"]);
        assert_eq!(lost(&script, &sections), "until now: 3 patterns, of which 0 stand for nothing");
        assert_eq!(lost(&script, &[]), "until now: 3 patterns, of which 3 stand for nothing");
    }

    #[test]
    fn what_both_execute_lies_between_what_either_does() {
        let names = ["order", "both", "call", "idle"].map(|name| format!(".text.{name}"));
        let sections = map(&names.each_ref().map(|name| (name.as_str(), 1000)));
        let list = List::choose(&sections, &[false, true, true, false], &[true, true, false, false]);
        assert_eq!(patterns(&list.script()), [".text.order", ".text.both", ".text.call"]);
    }

    #[test]
    fn what_newer_processors_execute_is_listed_with_what_was_seen() {
        let map = "Linker script and memory map\n .text 0x10 0x8 /a(b-mul_alt.o)\n .text 0x20 0x8 /a(b-mul.o)\n";
        let count =
            |calls: [bool; 2]| List::choose(&sections::read(map), &calls, &[false; 2]).parts.map(|part| part.len());
        assert_eq!(count([true, false]), [0, 0, 2, 0]);
        assert_eq!(count([false, true]), [0, 0, 1, 0]);
    }

    #[test]
    fn a_long_name_is_cut_where_it_is_the_only_one() {
        let [one, two] = ["a", "b"].map(|end| format!(".text.{}{end}{}", "x".repeat(150), "y".repeat(300)));
        let sections = map(&[(&one, 1000), (&two, 9000)]);
        let list = List::choose(&sections, &[true, false], &[false; 2]);
        assert_eq!(list.parts.each_ref().map(|part| part.iter().map(String::len).sum::<usize>()), [0, 0, 201, 0]);
        assert!(list.has(&one) && !list.has(&two));
        assert_eq!(lost(&list.script(), &sections), "until now: 1 patterns, of which 0 stand for nothing");
    }
}
