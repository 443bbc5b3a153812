//! The whole server, tested through its doors.

mod books;
mod crash;
mod doors;
mod jump;
mod native;
mod quantiles;
mod support;
mod tempo;
