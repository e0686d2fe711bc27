//! The index of places: boxes of single precision, rounded outwards, over the exact geometries of documents and columns.

use entity::{GeoCondition, GeoRelation};
use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};

type Placed = GeomWithData<Rectangle<[f32; 2]>, u32>;

/// Slots by place.
#[derive(Default)]
pub(super) struct Places {
    tree: RTree<Placed>,
    /// While loading: what the tree will be built of.
    staged: Option<Vec<Placed>>,
}

/// A box, in degrees: west, south, east, north.
pub(super) type GeoBox = [f64; 4];

impl Places {
    /// An index that is filled before it is asked.
    pub(super) fn loading() -> Self {
        Self { tree: RTree::new(), staged: Some(Vec::new()) }
    }

    /// Builds the index of what came in while loading.
    pub(super) fn finish_load(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.tree = RTree::bulk_load(staged);
        }
    }

    pub(super) fn insert(&mut self, slot: u32, place: GeoBox) {
        let placed = GeomWithData::new(rounded_outwards(place), slot);
        match &mut self.staged {
            Some(staged) => staged.push(placed),
            None => self.tree.insert(placed),
        }
    }

    pub(super) fn remove(&mut self, slot: u32, place: GeoBox) {
        self.tree.remove(&GeomWithData::new(rounded_outwards(place), slot));
    }

    /// The slots that may lie in a box.
    pub(super) fn within(&self, place: GeoBox) -> impl Iterator<Item = u32> {
        let r = rounded_outwards(place);
        self.tree.locate_in_envelope_intersecting(&AABB::from_corners(r.lower(), r.upper())).map(|p| p.data)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // A node is as large as its larger variant, six to a parent, and a parent is a node too.
        self.tree.size() * 52
    }
}

// Truncated: rounded outwards afterwards.
fn rounded_outwards([west, south, east, north]: GeoBox) -> Rectangle<[f32; 2]> {
    let down = |v: f64| (v as f32).next_down();
    let up = |v: f64| (v as f32).next_up();
    Rectangle::from_corners([down(west), down(south)], [up(east), up(north)])
}

pub(super) fn boxes_are_apart(a: GeoBox, b: GeoBox) -> bool {
    a[0] > b[2] || b[0] > a[2] || a[1] > b[3] || b[1] > a[3]
}

/// A box outside of which no place can satisfy the condition; none if there is no such box.
pub(super) fn search_box(geo: &GeoCondition) -> Option<GeoBox> {
    let [west, south, east, north] = geo.reference.bbox();
    let margin_m = match geo.relation {
        GeoRelation::NearMax(m) => m,
        GeoRelation::Within | GeoRelation::Contains | GeoRelation::Intersects | GeoRelation::Equals | GeoRelation::Overlaps => 0.0,
        GeoRelation::NearMin(_) | GeoRelation::Disjoint => return None,
    };
    // 1 % more than needed: the sphere's degree is 111.195 km.
    let lat_margin = margin_m / 110_000.0;
    // The parallel farthest from the equator that is within reach has the shortest degrees.
    let farthest = (north.abs().max(south.abs()) + lat_margin).min(89.0);
    let lon_margin = lat_margin / farthest.to_radians().cos();
    let reaches_over = lon_margin > 90.0
        || north + lat_margin > 89.0
        || south - lat_margin < -89.0
        || west - lon_margin < -180.0
        || east + lon_margin > 180.0;
    if reaches_over && margin_m > 0.0 {
        // Around the pole or over the date line: no single box.
        return None;
    }
    Some([west - lon_margin, south - lat_margin, east + lon_margin, north + lat_margin])
}
