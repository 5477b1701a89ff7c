"""cluster.yaml: valid for Ray, and what Ray makes of it on AWS (moto's) within the stack of deploy/aws.yaml."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as ray_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.util import prepare_config, validate_config
from repository import REPOSITORY

CLUSTER = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
SSH_FROM = "203.0.113.0/24"
AWS_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
"""AWS's own, which moto does not have."""


def pinned_ray() -> str:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    return re.search(r"^ray==(.+)$", constraints, re.MULTILINE)[1]  # type: ignore[index]


def prepared() -> dict[str, Any]:
    return prepare_config(copy.deepcopy(CLUSTER))


def test_ray_accepts_it() -> None:
    validate_config(prepared())


def test_ray_s_schema_is_applied() -> None:
    broken = prepared()
    broken["idle_timeout"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        validate_config(broken)


def test_a_head_without_work_and_spot_workers_from_none() -> None:
    config = prepared()
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert config["head_node_type"] == "head"
    assert head["max_workers"] == 0
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert gpu["min_workers"] == 0
    assert gpu["max_workers"] == config["max_workers"] > 0
    assert gpu["resources"]["GPU"] == 1
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_every_node_is_pinned_encrypted_without_keys_and_behind_imdsv2() -> None:
    assert CLUSTER["docker"]["image"] == f"rayproject/ray:{pinned_ray()}-py311-gpu"
    for node in CLUSTER["available_node_types"].values():
        config = node["node_config"]
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert config["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert config["IamInstanceProfile"]["Name"].startswith("wsss-ray-")
        assert config["SecurityGroupIds"]
        assert config["ImageId"].startswith("ami-")
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
    assert not re.search(r"(?i)aws_(access|secret|session)|AKIA", (REPOSITORY / "cluster.yaml").read_text())


def test_setup_takes_the_tested_versions_and_gives_shared_memory() -> None:
    config = prepared()
    for here in ("pyproject.toml", "constraints.txt"):
        assert here in CLUSTER["file_mounts"].values()
        assert (REPOSITORY / here).is_file()
    assert config["worker_setup_commands"] == CLUSTER["setup_commands"]
    installs = [line for command in config["head_setup_commands"] for line in command.split("&&") if "install" in line]
    assert len(installs) == 3
    assert all("-c " in line and "constraints.txt" in line for line in installs)
    assert any(option.startswith("--shm-size=") for option in CLUSTER["docker"]["head_run_options"])
    assert any(option.startswith("--shm-size=") for option in CLUSTER["docker"]["worker_run_options"])


def test_the_setup_command_lists_the_dependencies(tmp_path: Path) -> None:
    script = re.search(r'python -c "(.+?)"', CLUSTER["setup_commands"][0])[1]  # type: ignore[index]
    lines: list[str] = []
    exec(
        script.replace("pyproject.toml", str(REPOSITORY / "pyproject.toml")),
        {"print": lambda *words, sep: lines.append(sep.join(words))},
    )
    assert any(line.startswith("ray[data,default,train]") for line in lines[0].splitlines())
    assert any(line.startswith("transformers") for line in lines[0].splitlines())


def test_who_uses_it_needs_the_token_and_a_tunnel() -> None:
    options = " ".join(CLUSTER["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options
    path = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)", options)[1]  # type: ignore[index]
    assert CLUSTER["file_mounts"][path] == "~/.ray/auth_token"
    head = " ".join(CLUSTER["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in (REPOSITORY / "cluster.yaml").read_text()
    assert "--metrics-export-port=" in head
    assert "--metrics-export-port=" in " ".join(CLUSTER["worker_start_ray_commands"])


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An empty account with the stack of deploy/aws.yaml; yields its outputs."""
    region = CLUSTER["provider"]["region"]
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray keeps the key pair that it makes in ~/.ssh
        patch.setenv("AWS_DEFAULT_REGION", region)
        resource_cache.cache_clear()
        ec2 = boto3.client("ec2", region_name=region)
        subnet = ec2.describe_subnets()["Subnets"][0]
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        values = {"Vpc": subnet["VpcId"], "Subnet": subnet["SubnetId"], "SshFrom": SSH_FROM, "Bucket": "pictures"}
        boto3.client("ssm", region_name=region).put_parameter(Name="/image", Value=image, Type="String")
        template = (REPOSITORY / "deploy" / "aws.yaml").read_text()
        assert AWS_PARAMETER in template
        boto3.client("cloudformation", region_name=region).create_stack(
            StackName="wsss-ray",
            TemplateBody=template.replace(AWS_PARAMETER, "/image"),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        stack = boto3.client("cloudformation", region_name=region).describe_stacks(StackName="wsss-ray")["Stacks"][0]
        yield {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        resource_cache.cache_clear()


def filled(outputs: dict[str, str]) -> dict[str, Any]:
    """cluster.yaml with the stack's outputs where its comments ask for them."""
    text = (REPOSITORY / "cluster.yaml").read_text()
    for name, value in outputs.items():
        text, count = re.subn(rf"\w+-0{{17}}(?=.*# output {name}\b)", value, text)
        assert count == 2, f"{name} belongs into two lines"
    assert "00000000" not in text
    return prepare_config(yaml.safe_load(text))


def test_ray_starts_nodes_that_nobody_else_reaches(aws: dict[str, str]) -> None:
    config = ray_aws.bootstrap_aws(filled(aws))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in (("head", "head"), ("gpu", "worker")):
        node_config = config["available_node_types"][name]["node_config"]
        provider.create_node(node_config, {"ray-node-type": kind, "ray-node-status": "uninitialized"}, 1)
    ec2 = boto3.client("ec2")
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert sorted(i["InstanceType"] for i in instances) == ["g5.2xlarge", "m6i.xlarge"]
    assert [i.get("InstanceLifecycle") for i in instances if i["InstanceType"] == "g5.2xlarge"] == ["spot"]
    for instance in instances:
        assert instance["ImageId"] == aws["Image"]
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [aws["SecurityGroup"]]
        assert {"Key": "ray-cluster-name", "Value": "wsss-ray"} in instance["Tags"]  # what the head's rights hang on
    group = ec2.describe_security_groups(GroupIds=[aws["SecurityGroup"]])["SecurityGroups"][0]
    for rule in group["IpPermissions"]:
        if rule["IpRanges"]:
            assert [entry["CidrIp"] for entry in rule["IpRanges"]] == [SSH_FROM]
            assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
        else:
            assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [aws["SecurityGroup"]]
        assert not rule["Ipv6Ranges"]
    assert len(group["IpPermissions"]) == 2


def test_without_its_own_group_ray_would_open_ssh_to_the_world(aws: dict[str, str]) -> None:
    """Why cluster.yaml names a group: should Ray change this, the comment there is out of date."""
    config = filled(aws)
    for node in config["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
    group = ray_aws.bootstrap_aws(config)["available_node_types"]["gpu"]["node_config"]["SecurityGroupIds"][0]
    rules = boto3.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    assert "0.0.0.0/0" in json.dumps(rules)


def statements(role: str) -> list[dict[str, Any]]:
    """All that a role may do."""
    iam = boto3.resource("iam").Role(role)
    documents = [policy.policy_document for policy in iam.policies.all()]
    documents += [policy.default_version.document for policy in iam.attached_policies.all()]
    # moto gives an inline policy as text, with single quotes
    parsed = [yaml.safe_load(document) if isinstance(document, str) else document for document in documents]
    return [statement for document in parsed for statement in document["Statement"]]


@pytest.mark.parametrize("role", ["wsss-ray-worker", "wsss-ray-head"])
def test_the_roles_end_at_their_prefixes(aws: dict[str, str], role: str) -> None:
    assert len(statements(role)) >= 3
    for statement in statements(role):
        actions, resources = _listed(statement["Action"]), _listed(statement["Resource"])
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in actions)
        for action in actions:
            if action == "s3:ListBucket":
                assert resources == ["arn:aws:s3:::pictures"]
                prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
                assert sorted(prefixes) == ["data", "data/*", "runs", "runs/*"]
            elif action.startswith("s3:"):
                writes = action not in ("s3:GetObject",)
                allowed = {"arn:aws:s3:::pictures/runs/*"} | (set() if writes else {"arn:aws:s3:::pictures/data/*"})
                assert set(resources) <= allowed
            else:
                assert role == "wsss-ray-head"
                free = action.startswith("ec2:Describe") or statement["Sid"] == "InThisNetwork"
                assert free or statement["Condition"]["StringEquals"]
                assert resources != ["*"] or action.startswith("ec2:Describe")


def test_the_worker_role_may_do_nothing_but_data(aws: dict[str, str]) -> None:
    actions = [action for statement in statements("wsss-ray-worker") for action in _listed(statement["Action"])]
    assert actions
    assert all(action.startswith("s3:") for action in actions)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("203.0.113.0/24", True),
        ("198.51.100.7/32", True),
        ("0.0.0.0/0", False),
        ("0.0.0.0/16", False),
        ("10.0.0.0/8", False),
    ],
)
def test_the_stack_refuses_the_whole_world(value: str, good: bool) -> None:
    text = (REPOSITORY / "deploy" / "aws.yaml").read_text()
    pattern = re.search(r"AllowedPattern: '(.+)'", text)[1]  # type: ignore[index]
    assert bool(re.fullmatch(pattern, value)) is good


def test_the_documented_policy_is_the_stack_s(aws: dict[str, str]) -> None:
    text = (REPOSITORY / "SECURITY.md").read_text()
    documented = json.loads(re.search(r"```json\n(.+?)```", text, re.DOTALL)[1].replace("BUCKET", "pictures"))  # type: ignore[index]
    made = [{key: value for key, value in entry.items() if key != "Sid"} for entry in statements("wsss-ray-worker")]
    assert made == documented["Statement"]
