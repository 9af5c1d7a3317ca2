//! Plots as SVG, which needs no script and is sharp on paper. Pure.

use std::fmt::Write;

use super::scale::Scale;
use super::{CLASSES, each, escape};
use crate::compare::rows::{Unit, shown};
use crate::compare::statistics::Summary;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
/// The room for what is written at the axes.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;
/// How far the points of two servers are apart where they have the same place, so that neither hides the other.
const APART: f64 = 8.0;

/// A plot of lines: values of several series over the same axis.
pub struct Plot<'a> {
    /// What is shown.
    pub title: &'a str,
    /// The unit of the values.
    pub unit: Unit,
    /// The other axis.
    pub across: Across,
    /// The lines.
    pub series: Vec<Series>,
}

/// The axis at the bottom.
pub enum Across {
    /// Places of their own, with a text for each: 0, 1, 2 and so on.
    Steps(&'static str, Vec<String>),
    /// Seconds from zero on.
    Seconds(&'static str),
}

/// One line.
pub struct Series {
    /// For the legend; empty if it is a further line of the one before.
    pub name: String,
    /// Which server.
    pub server: usize,
    /// How it is drawn.
    pub style: Style,
    /// Its places at the bottom, and the values there.
    pub points: Vec<(f64, Summary)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With its points and their spread.
    Solid,
    /// The same, dashed.
    Dashed,
    /// One of many, without points.
    Many,
}

impl Style {
    const fn class(self) -> &'static str {
        match self {
            Self::Solid => "",
            Self::Dashed => " dashed",
            Self::Many => " many",
        }
    }
}

impl Plot<'_> {
    /// The plot with its caption; nothing without values.
    pub fn figure(&self) -> String {
        if self.series.iter().all(|series| series.points.is_empty()) {
            return String::new();
        }
        let title = escape(self.title);
        format!(
            "<figure><figcaption><h3>{title}</h3><p class=\"legend\">{}</p></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{}{}{}</svg></figure>\n",
            self.legend(),
            self.up(),
            self.across(),
            each(&self.series, |series| self.line(series))
        )
    }

    fn legend(&self) -> String {
        let named = self.series.iter().filter(|series| !series.name.is_empty());
        let entry = |series: &Series| {
            let point = if series.style == Style::Many { String::new() } else { point(series.server, 16.0, 7.0) };
            format!(
                "<span><svg viewBox=\"0 0 32 14\" aria-hidden=\"true\"><g class=\"series {}{}\"><path d=\"M0 7H32\"/>{point}</g></svg>{}</span>",
                CLASSES[series.server % CLASSES.len()],
                series.style.class(),
                escape(&series.name)
            )
        };
        each(named, entry)
    }

    fn values(&self) -> impl Iterator<Item = f64> + Clone {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.flat_map(|(_, summary)| [summary.least, summary.median, summary.most])
    }

    /// For values in the unit in which they are shown.
    fn scale(&self) -> Scale {
        let values = self.values().map(|value| value / self.shown_in());
        match self.across {
            Across::Steps(..) => Scale::of(values),
            // Memory grows from nothing: half as high has to mean half as much.
            Across::Seconds(_) => Scale::linear(values),
        }
    }

    /// The unit in which values are shown, where a round number of it is not one of the values' own unit.
    const fn shown_in(&self) -> f64 {
        if matches!(self.unit, Unit::Bytes) { 1_048_576.0 } else { 1.0 }
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.scale().place(value / self.shown_in()) * (HEIGHT - BOTTOM - TOP)
    }

    fn up(&self) -> String {
        let mut text = String::new();
        for tick in self.scale().ticks().into_iter().map(|tick| tick * self.shown_in()) {
            let (y, class) = (self.y(tick), if tick == 0.0 { "base" } else { "grid" });
            let _ = write!(
                text,
                "<line class=\"{class}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                shown(tick, self.unit)
            );
        }
        text
    }

    /// The axis of time.
    fn seconds(&self) -> Scale {
        Scale::linear(self.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x))
    }

    fn x(&self, place: f64) -> f64 {
        let share = match &self.across {
            Across::Steps(_, names) => (place + 0.5) / f64::from(u32::try_from(names.len()).unwrap_or(u32::MAX)),
            Across::Seconds(_) => self.seconds().place(place),
        };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn across(&self) -> String {
        let label = |x: f64, text: &str| {
            let y = HEIGHT - BOTTOM + 18.0;
            format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", escape(text))
        };
        let (name, labels) = match &self.across {
            Across::Steps(name, names) => {
                (name, each((0_u32..).zip(names), |(at, text)| label(self.x(at.into()), text)))
            }
            Across::Seconds(name) => (name, each(self.seconds().ticks(), |at| label(self.x(at), &at.to_string()))),
        };
        let (middle, bottom) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 6.0);
        format!("{labels}<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{name}</text>")
    }

    fn line(&self, series: &Series) -> String {
        let aside = match (&self.across, series.server) {
            (Across::Seconds(_), _) => 0.0,
            (Across::Steps(..), 0) => -APART / 2.0,
            (Across::Steps(..), _) => APART / 2.0,
        };
        let place = |(x, summary): &(f64, Summary)| (self.x(*x) + aside, *summary);
        let mut path = String::new();
        let mut points = String::new();
        for (x, summary) in series.points.iter().map(place) {
            let (least, median, most) = (self.y(summary.least), self.y(summary.median), self.y(summary.most));
            let _ = write!(path, "{}{x:.1} {median:.1}", if path.is_empty() { 'M' } else { 'L' });
            if series.style != Style::Many {
                let _ = write!(points, "<line x1=\"{x:.1}\" y1=\"{least:.1}\" x2=\"{x:.1}\" y2=\"{most:.1}\"/>");
                points += &point(series.server, x, median);
            }
        }
        let class = CLASSES[series.server % CLASSES.len()];
        format!("<g class=\"series {class}{}\"><path d=\"{path}\"/>{points}</g>", series.style.class())
    }
}

/// A round point for the first server, a square one for the second: they differ without colours, too.
fn point(server: usize, x: f64, y: f64) -> String {
    if server == 0 {
        return format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.2\"/>");
    }
    format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7.6\" height=\"7.6\"/>", x - 3.8, y - 3.8)
}
