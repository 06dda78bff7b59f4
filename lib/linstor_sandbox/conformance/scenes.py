"""Scenario by scenario: what had to be there, what was done between the exchanges, and what is not compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from .stage import (
    NODES,
    Step,
    available,
    both,
    broken,
    cluster,
    connection,
    define,
    delete,
    disk_state,
    fuller,
    group,
    hold,
    holds,
    https,
    hung,
    no_satellites,
    nodes,
    place,
    release,
    restore_volumes,
    satellite,
    snapshot,
    start_controller,
    stop_controller,
    storage_only,
    sweep,
    tie_breaker,
    write,
)


@dataclass(frozen=True)
class Scene:
    """What a recording takes for granted: steps before exchanges (0: before all), and exchanges left out with why."""

    before: dict[int, list[Step]] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)


NOBODY = "nobody calls it"
LUKS = (
    "POST",
    "/v1/resource-definitions",
    {
        "resource_definition": {
            "name": "lu",
            "layer_data": [{"type": "DRBD"}, {"type": "LUKS"}, {"type": "STORAGE"}],
            "resource_group_name": "rg1",
        }
    },
)
ST1 = "/v1/resource-definitions/st1"
PLACED = [f"p{letter}" for letter in "123456789acdefghijk"] + ["pb", "pc2"]
SCENES = {
    "01": Scene({1: [no_satellites]}, {3: NOBODY, 47: NOBODY}),
    "02": Scene(
        {
            1: [nodes],
            5: [connection("n1", "CONNECTED"), connection("n2", "CONNECTED"), connection("n3", "ONLINE")],
            6: [connection("n1", "ONLINE"), connection("n2", "ONLINE")],
            7: [connection("n4", "ONLINE")],
        },
        {43: NOBODY, 44: NOBODY, 61: NOBODY},
    ),
    "03": Scene({0: [cluster], 62: [broken("clone", "n1")]}),
    "04": Scene(
        {
            0: [cluster],
            20: both("q1", "DfltRscGrp", 32768, storage_pool_list=["thin"]),
            54: [step for name in PLACED for step in define(name, 32768, "DfltRscGrp")],
            76: [fuller("n2", "fat", -32812)],
            77: [fuller("n2", "fat", 32812)],
            96: delete(*PLACED),
            107: delete("one-vm-7-disk-0"),
            113: [sweep],
        }
    ),
    "05": Scene(
        {
            0: [cluster],
            1: define("r1"),
            17: define("r2"),
            19: [*delete("r1", "r2"), *both("m1", place_count=1)],
            26: [disk_state("m1", "n2", "Inconsistent")],
            27: [disk_state("m1", "n2", None)],
            29: [*delete("m1"), *both("m2")],
            38: [*delete("m2"), *both("u1"), hold("u1", "n1")],
            48: [release("u1", "n1")],
            71: [*delete("u1"), *both("l1", place_count=1), *available("l1", "n4")],
            73: [*delete("l1"), *both("z1")],
            85: [hold("z1", "n1")],
            89: [release("z1", "n1")],
            90: both("z3"),
            94: define("z4"),
            96: define("z2"),
            99: [*delete("z2", "z4"), *both("q1")],
            102: [hold("q1", "n1"), hold("q1", "n2")],
            103: [release("q1", "n1"), release("q1", "n2")],
            140: [sweep],
        },
        {65: "in_use of the new tie-breaker was not known for a moment"},
    ),
    "06": Scene(
        {
            0: [cluster],
            1: [*both("s1"), write("s1", b"version-one")],
            18: [
                ("DELETE", "/v1/resource-definitions/s1/snapshots/snapn"),
                write("s1", b"version-two"),
                hold("s1", "n1"),
            ],
            20: [release("s1", "n1")],
            21: [holds("s1", b"version-one")],
            26: [holds("s1", b"version-two")],
            28: define("s1w")[:1],
            35: [holds("s1r", b"version-one")],
            38: restore_volumes("s1p", "s1", "snap2"),
            42: [holds("s1p", b"version-two")],
            43: restore_volumes("s1q", "s1", "snap2"),
            45: delete("s1q", "s1w", "s1r"),
            57: [
                tie_breaker("n2"),
                *delete("s1", "s1p"),
                *both("mb", node_name_list=["n1", "n3"]),
                tie_breaker("n3"),
                *both("ma"),
            ],
            62: [*both("sf", node_name_list=["n1", "n2"]), broken("snapshot", "n1", "n2")],
            67: [
                *both("spthin", "DfltRscGrp", storage_pool_list=["thin"], node_name_list=["n1", "n2"]),
                *both("spthick", "DfltRscGrp", storage_pool_list=["thick"]),
                tie_breaker("n2"),
                *both("spfat", "DfltRscGrp", storage_pool_list=["fat"], node_name_list=["n1", "n3"]),
            ],
            70: both("pp", node_name_list=["n1", "n2"]),
            73: [sweep],
        },
        {44: "which pool a resource keeps whose restore into one of another kind failed"},
    ),
    "07": Scene(
        {
            0: [cluster],
            1: [
                *both("c1"),
                write("c1", b"golden-image"),
                (
                    "PUT",
                    "/v1/resource-definitions/c1",
                    {"override_props": {"Aux/one/IMAGE_ID": "5", "DrbdOptions/Net/allow-two-primaries": "yes"}},
                ),
            ],
            7: [holds("c1a", b"golden-image")],
            11: [hold("c1", "n1")],
            13: [release("c1", "n1")],
            27: [*available("c1", "n4"), ("DELETE", "/v1/resource-definitions/c1/resources/n3")],
            30: [("POST", "/v1/resource-definitions/c1/resources/n2/deactivate")],
            33: [("POST", "/v1/resource-definitions/c1/resources/n2/activate"), disk_state("c1", "n2", "Inconsistent")],
            34: [disk_state("c1", "n2", None), define("c3")[0]],
            39: [group("rgthick", "thick"), *both("k1", "rgthick")],
            47: both("g1", node_name_list=["n1", "n2"]),
            56: [sweep],
        }
    ),
    "08": Scene(
        {
            0: [cluster],
            13: [*delete("lu"), LUKS],
            16: delete("lu"),
            37: [
                (
                    "POST",
                    "/v1/resource-definitions",
                    {
                        "resource_definition": {
                            "name": f"pg{number}",
                            "resource_group_name": "rg1",
                            "props": {"Aux/one/DS_ID": str(100 + number % 2)},
                        }
                    },
                )
                for number in range(5)
            ],
        },
        {
            **dict.fromkeys((17, 18, 19, 20, 21, 22, 27, 28, 29, 45, 46, 47), NOBODY),
            26: "the recording kept compressed bytes as text; test_server.py has its own test",
        },
    ),
    "09": Scene(
        {
            0: [cluster, ("POST", "/v1/encryption/passphrase", {"new_passphrase": "secret"})],
            3: [broken("create", "n1")],
            8: [*define("o1", 32768), *place("o1", node_name_list=["n1", "n2"])],
            9: [satellite("n2", False)],
            26: define("o2", 32768),
            29: delete("o2"),
            30: define("o3"),
            35: [("DELETE", "/v1/resource-definitions/o1/snapshots/snapo")],
            40: [satellite("n2", True)],
            41: both("o4", size=32768, node_name_list=["n1", "n2"]),
            42: [hung("n2", True)],
            43: [satellite("n2", False)],
            48: [hung("n2", False), satellite("n2", True)],
            49: [tie_breaker("n2"), *both("o5", size=32768, node_name_list=["n1", "n3"])],
            50: [stop_controller],
            51: [start_controller],
            54: [connection("n1", "CONNECTED")],
            57: [connection(node, "ONLINE") for node in NODES],
            64: [sweep],
        }
    ),
    "10": Scene(
        {
            0: [cluster],
            209: [
                (
                    "POST",
                    "/v1/resource-groups/rg1/spawn",
                    {"resource_definition_name": "pytmo", "volume_sizes": [65536]},
                )
            ],
        }
    ),
    "11": Scene(left_out={4: "no exchange, but times of many"}),
    "12": Scene({0: [https]}),
    "13": Scene(
        {
            0: [cluster, no_satellites],
            7: [*both("ap1"), hold("ap1", "n1")],
            9: [release("ap1", "n1")],
            10: both("ad1"),
            13: [
                *storage_only("b0", "n1", "n2", "n4"),
                *delete("ap1", "ad1"),
                group("rgft", "thin"),
                *both("b1", "rgft", place_count=1),
            ],
            18: define("b2"),
            20: [sweep],
        },
        {12: "nobody asks for auto-diskful"},
    ),
    "14": Scene({0: [cluster, no_satellites]}),
    "15": Scene(
        {
            0: [
                cluster,
                *storage_only("st1", "n1", "n2", "n4"),
                snapshot("st1", "snap1"),
                snapshot("st1", "snap2", "n1"),
                storage_only("st1r")[0],
                ("POST", f"{ST1}/snapshot-restore-volume-definition/snap1", {"to_resource": "st1r"}),
                ("POST", f"{ST1}/snapshot-restore-resource/snap1", {"to_resource": "st1r", "nodes": ["n2"]}),
            ]
        },
        dict.fromkeys((2, 4, 6, 8, 9, 10, 13, 15, 16), "upstream bug: a refused clone poisons the controller"),
    ),
}
