//! The command line: definitions, tables, JSON. The only room that prints.
