//! The page's pictures: how a figure changes with the number of clients.

use anyhow::Result;
use plotters::prelude::{BLUE, CYAN, RED, SeriesLabelPosition};

use super::report::Page;
use super::samples::{Clients, Figure, Job, Samples};
use crate::chart::{Chart, Line};

/// One picture: the end of its file's name, what it shows.
pub struct Plot {
    pub name: &'static str,
    pub title: &'static str,
    figure: fn(Job, Clients) -> Figure,
    /// Where no line is expected.
    legend: SeriesLabelPosition,
}

pub const PLOTS: [Plot; 3] = [
    Plot {
        name: "writes",
        title: "Writes a second, by clients",
        figure: Figure::Rate,
        legend: SeriesLabelPosition::UpperLeft,
    },
    Plot {
        name: "p99",
        title: "p99 of writes in milliseconds, by clients",
        figure: Figure::P99,
        legend: SeriesLabelPosition::UpperLeft,
    },
    Plot {
        name: "cpu",
        title: "Servers' processor seconds per 1,000 writes, by clients",
        figure: Figure::ServerCpu,
        legend: SeriesLabelPosition::UpperRight,
    },
];

impl Plot {
    /// As SVG.
    pub fn draw(&self, page: &Page) -> Result<String> {
        let line = |name, color, samples| Line { name, color, points: self.points(samples) };
        let lines = [
            line("Bellwether, etcd's protocol", BLUE, &page.bellwether),
            line("Bellwether, HTTP", CYAN, &page.http),
            line("etcd", RED, &page.etcd),
        ];
        let range = Clients::One.count() as f64..Clients::Most.count() as f64;
        Chart { title: self.title, along: "clients", range, legend: self.legend.clone() }.draw(&lines)
    }

    fn points(&self, samples: &Samples) -> Vec<(f64, f64)> {
        let point = |clients: Clients| {
            Some((clients.count() as f64, samples.median((self.figure)(Job::Put, clients))?))
        };
        Clients::ALL.into_iter().filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::tests::page;

    #[test]
    fn pictures_name_both_systems() {
        for plot in &PLOTS {
            let svg = plot.draw(&page()).expect("draws");
            assert!(svg.starts_with("<svg") && svg.contains("etcd") && svg.contains("Bellwether, HTTP"));
        }
    }
}
